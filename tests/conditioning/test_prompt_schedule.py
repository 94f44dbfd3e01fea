"""Which keyframes each frame of a clip is made of, and the values that run along."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion.conditioning.keyframes import EASINGS, Position
from motion.conditioning.prompt_schedule import resolve
from motion.conditioning.prompt_travel import read_prompt
from motion.errors import SettingsError
from tests.conditioning.test_prompt_travel import pieces


def shares(text, num_frames, **options):
    """Per frame the weight of each prompt that has one."""
    schedule = resolve(read_prompt(text), num_frames, **options)
    found = []
    for blend in schedule.frames:
        weights = {schedule.prompts[blend.first]: 1 - blend.share}
        found.append(weights | ({schedule.prompts[blend.second]: blend.share} if blend.share else {}))
    return found


def share_of(text, prompt, num_frames, **options):
    return [weights.get(prompt, 0) for weights in shares(text, num_frames, **options)]


def test_frames_run_from_keyframe_to_keyframe_and_hold_at_the_ends():
    assert share_of("2: a\n6: b", "b", 9) == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_keyframes_may_stand_in_any_order():
    assert shares("6: b\n2: a", 9) == shares("2: a\n6: b", 9)


def test_a_range_holds_its_frames():
    assert share_of("0: a\n2-4: b\n6: c", "b", 7) == [0, 0.5, 1, 1, 1, 0.5, 0]


def test_hold_jumps():
    assert share_of("0 hold: a\n3: b", "b", 5) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("easing", "middle"),
    [
        ("linear", [0.25, 0.5, 0.75]),
        ("ease-in", [0.0625, 0.25, 0.5625]),
        ("ease-out", [0.4375, 0.75, 0.9375]),
        ("ease-in-out", [0.15625, 0.5, 0.84375]),
    ],
)
def test_easing(easing, middle):
    assert share_of(f"0 {easing}: a\n4: b", "b", 5) == [0, *middle, 1]


def test_one_keyframe_is_for_all_frames():
    assert shares("head\n5: a", 8) == [{"head, a": 1}] * 8


def test_a_closed_loop_goes_on_to_the_first_keyframe():
    assert share_of("0: a\n4: b", "b", 8, closed_loop=True) == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]
    assert share_of("2: a\n6: b", "b", 8, closed_loop=True) == [0.5, 0.25, 0, 0.25, 0.5, 0.75, 1, 0.75]
    assert share_of("2: a\n6 hold: b", "b", 8, closed_loop=True)[:3] == [1, 1, 0]


@pytest.mark.parametrize(
    ("position", "num_frames", "frame"),
    [("0.0", 16, 0), ("1.0", 16, 15), ("0.5", 16, 8), ("0.5", 17, 8), ("-1", 16, 15), ("-16", 16, 0), ("0.5", 1, 0)],
)
def test_positions(position, num_frames, frame):
    assert Position(position).frame(num_frames) == frame


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0: a\n16: b", "'16: b': Frame 16 is outside the clip, whose frames are 0 to 15"),
        ("-17: b", "Frame -17 is outside"),
        ("1.5: b", "fraction of the clip from 0.0 to 1.0, got 1.5"),
        ("-0.5: b", "got -0.5"),
        ("8-4: b", "must not end before it begins, got frames 8 to 4"),
        ("8: a\n8: b", "two for frame 8 of 16: '8: a' and '8: b'"),
        ("4-8: a\n6: b", "two for frame 6 of 16: '4-8: a' and '6: b'"),
        ("15: a\n1.0: b", "two for frame 15"),
        (f"{10**30}: a", "too many digits"),
    ],
)
def test_what_a_clip_has_no_room_for_is_quoted(text, message):
    with pytest.raises(SettingsError) as caught:
        resolve(read_prompt(text), 16)
    assert message in str(caught.value)


def test_values_run_along_and_need_no_text():
    schedule = resolve(read_prompt("1girl\n0 cfg=5:\n4 cfg=9 motion=0.5:"), 6)
    assert schedule.prompts == ("1girl",)
    assert schedule.cfg == (5, 6, 7, 8, 9, 9)
    assert schedule.motion == (0.5,) * 6
    assert resolve(read_prompt("0: a"), 6).cfg is None


def test_a_value_skips_keyframes_that_do_not_name_it():
    assert resolve(read_prompt("0 cfg=5: a\n2: b\n4 cfg=9: c"), 5).cfg == (5, 6, 7, 8, 9)


def test_the_description_names_every_frame():
    text = resolve(read_prompt("1girl\n0 cfg=5: a\n4: b\nsmile"), 6).describe()
    assert text == "0: 1girl, a, smile\n1-3: to the next prompt, 25%, 50%, 75%\n4-5: 1girl, b, smile\ncfg: 0-5 5"


@given(st.lists(pieces, max_size=30).map("".join), st.integers(1, 40), st.booleans())
def test_any_prompt_is_resolved_or_refused(text, num_frames, closed_loop):
    try:
        schedule = resolve(read_prompt(text), num_frames, closed_loop=closed_loop)
    except SettingsError:
        return
    assert len(schedule.frames) == num_frames
    assert all(0 <= blend.share <= 1 for blend in schedule.frames)
    assert {0, *range(len(schedule.prompts))} >= {
        index for blend in schedule.frames for index in (blend.first, blend.second)
    }
    assert schedule.describe()


@given(st.lists(st.integers(0, 39), unique=True, min_size=1, max_size=6), st.sampled_from(EASINGS), st.booleans())
def test_every_keyframe_is_reached_whole(frames, easing, closed_loop):
    text = "\n".join(f"{frame} {easing}: text {frame}" for frame in frames)
    found = shares(text, 40, closed_loop=closed_loop)
    assert all(found[frame] == {f"text {frame}": 1} for frame in frames)
