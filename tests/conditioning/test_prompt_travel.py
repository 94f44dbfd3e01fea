"""What is a keyframe and what is text; every malformed line is quoted, every ordinary prompt stays itself."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from motion.conditioning.keyframes import EASINGS, Key, Position
from motion.conditioning.prompt_travel import Keyframe, TravelPrompt, check_travel, read_prompt
from motion.errors import SettingsError

ORDINARY = [
    "",
    "1girl, best quality",
    "1girl: best",
    "a photo: cat",
    "2 cats: a portrait",
    "12:30, noon",
    "12:30:15",
    "8:30pm in town",
    "16:9 picture",
    "4:3",
    "3/4: view",
    "(0.8: x)",
    "[0: b: 0.5]",
    "a cat,\n(a dog:1.2)\n  of 1984, the book: read\n\nlast",
    "masterpiece\r\nbest quality",
]
KEYS = {
    "8": Key(Position("8")),
    "  0 ": Key(Position("0")),
    "-1": Key(Position("-1")),
    "0.5": Key(Position("0.5")),
    ".5": Key(Position(".5")),
    "8-12": Key(Position("8"), Position("12")),
    "8 - 12": Key(Position("8"), Position("12")),
    "-4--1": Key(Position("-4"), Position("-1")),
    "0.25-0.5": Key(Position("0.25"), Position("0.5")),
    "8 hold": Key(Position("8"), hold=True),
    "8 HOLD": Key(Position("8"), hold=True),
    "8 ease-in-out": Key(Position("8"), easing="ease-in-out"),
    "8 hold cfg = 7.5 motion=.5": Key(Position("8"), hold=True, values={"cfg": 7.5, "motion": 0.5}),
}
MALFORMED = [
    ("8:", "needs a text"),
    ("8 hodl: x", "got hodl"),
    ("8 hold hold: x", "got hold"),
    ("8 ease-in ease-out: x", "got ease-out"),
    ("8 speed=3: x", "got speed=3"),
    ("8 cfg=high: x", "cfg must be a number from 0 to 100, got 'high'"),
    ("8 cfg=: x", "got ''"),
    ("8 cfg=nan: x", "got 'nan'"),
    ("8 motion=3: x", "motion must be a number from 0 to 2, got '3'"),
    ("8;: x", "begins like a keyframe"),
    ("50%: x", "begins like a keyframe"),
    ("8..12: x", "begins like a keyframe"),
    ("frame 8: x", "begins like a keyframe"),
    ('"8": "x",', "begins like a keyframe"),
    ("8,12: x", "begins like a keyframe"),
]
BESIDE = ["16:9 picture", "12:30", "2 cats: a portrait", "8 foo: b"]


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_prompt_stays_to_the_letter(text):
    prompt = read_prompt(text)
    assert not prompt.is_travel
    assert prompt.at("") == text.replace("\r\n", "\n")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("space", ["", " ", "\t "])
def test_a_key_is_read_with_any_spaces(key, space):
    prompt = read_prompt(f"{space}{key}{space}:{space}open mouth")
    assert [(frame.key, frame.text) for frame in prompt.keyframes] == [(KEYS[key], "open mouth")]


def test_a_keyframe_may_begin_with_digits():
    assert [frame.text for frame in read_prompt("0:1girl\n8: 2 girls\n12:(cat:1.2)").keyframes] == [
        "1girl",
        "2 girls",
        "(cat:1.2)",
    ]


@pytest.mark.parametrize(("line", "reason"), MALFORMED)
@pytest.mark.parametrize("prompt", ["{}", "head\n{}", "0: a\n{}", "0: a\n{}\n12: b"])
def test_a_malformed_line_is_quoted(line, reason, prompt):
    with pytest.raises(SettingsError, match=r"^Prompt line ") as caught:
        read_prompt(prompt.format(line))
    assert f"'{line}'" in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("line", BESIDE)
@pytest.mark.parametrize("prompt", ["{}\n0: a", "0: a\n{}", "0: a\n{}\n12: b"])
def test_beside_keyframes_nothing_is_guessed(line, prompt):
    with pytest.raises(SettingsError, match=f"^Prompt line '{line}'"):
        read_prompt(prompt.format(line))
    escaped = "\\" + line
    if "12" not in prompt:
        assert line in read_prompt(prompt.format(escaped)).at("x").split(", ")


def test_text_between_keyframes_is_refused_and_an_empty_line_is_none():
    with pytest.raises(SettingsError, match=r"'8 open mouth': every line between"):
        read_prompt("0: closed mouth\n8 open mouth\n12: smile")
    assert len(read_prompt("0: a\n\n  \n8: b\n").keyframes) == 2


@pytest.mark.parametrize("line", ["3: the movie", "50%: off", "frame 8: x", "\\8: x"])
def test_a_backslash_makes_text(line):
    prompt = read_prompt("\\" + line)
    assert (prompt.is_travel, prompt.at("")) == (False, line)


def test_other_backslashes_stay():
    assert read_prompt("\\1girl\n\\(x\\)").at("") == "\\1girl\n\\(x\\)"


def test_the_older_extensions_prompt():
    prompt = read_prompt("1girl, <lora:x:.8>,\n0: closed mouth\n8: open mouth\nsmile")
    assert [prompt.at(frame.text) for frame in prompt.keyframes] == [
        "1girl, <lora:x:.8>, closed mouth, smile",
        "1girl, <lora:x:.8>, open mouth, smile",
    ]


@pytest.mark.parametrize("tag", ["<lora:x:0.8>", "<lyco:x>", "<hypernet:h:1>"])
def test_tags_in_keyframes_are_refused(tag):
    check_travel(read_prompt(f"{tag}\n0: a\n8: b\n{tag}"))
    with pytest.raises(SettingsError, match="can't change from frame to frame") as caught:
        check_travel(read_prompt(f"0: a\n8: b {tag}"))
    assert tag in str(caught.value)


def test_and_is_refused_in_travelling_prompts_only():
    for text in ("x AND y\n0: a", "0: a AND b", "0: a\nx AND y"):
        with pytest.raises(SettingsError, match="without AND"):
            check_travel(read_prompt(text))
        check_travel(read_prompt(text), is_negative=True)
    check_travel(read_prompt("a AND b"))
    check_travel(read_prompt("0: ANDROID\n8: SAND"))


def test_values_belong_into_the_prompt():
    with pytest.raises(SettingsError, match="'0 cfg=5: a': cfg and motion belong into the prompt"):
        check_travel(read_prompt("0 cfg=5: a"), is_negative=True)


# Property tests

positions = st.one_of(
    st.integers(-400, 400).map(str), st.integers(0, 1000).map(lambda thousandths: f"{thousandths / 1000:.3f}")
).map(Position)
values = st.fixed_dictionaries({}, optional={"cfg": st.floats(0, 100), "motion": st.floats(0, 2)})
keys = st.builds(Key, positions, st.none() | positions, st.booleans(), st.sampled_from(EASINGS), values)
lines = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
texts = lines.map(str.strip).filter(bool)
pieces = st.sampled_from(
    [*"0123456789:.-= \n\\", "hold", "ease-in", "cfg=", "motion", "girl", "AND", "<lora:x:1>", "%", '"']
)
keyframes = st.builds(Keyframe, keys, texts.filter(lambda text: not text[0].isdigit()), st.just(""))


def same(prompt):
    return prompt.head, [(frame.key, frame.text) for frame in prompt.keyframes], prompt.tail


@given(st.lists(lines, max_size=3), st.lists(keyframes, min_size=1, max_size=4), st.lists(lines, max_size=3))
def test_round_trip(head, frames, tail):
    prompt = TravelPrompt(tuple(head), tuple(frames), tuple(tail))
    assert same(read_prompt(prompt.text)) == same(prompt)


@given(st.lists(lines, min_size=1, max_size=4).map(tuple))
@example(("8: x", "\\8: x", "\\\\16:9", "frame 8: x", "\\1girl"))
def test_round_trip_of_text_without_keyframes(head):
    assert read_prompt(TravelPrompt(head).text) == TravelPrompt(head)


@given(st.text() | st.lists(pieces, max_size=30).map("".join))
def test_any_text_is_read_or_refused(text):
    try:
        prompt = read_prompt(text)
        check_travel(prompt)
    except SettingsError:
        return
    assert same(read_prompt(prompt.text)) == same(prompt)
