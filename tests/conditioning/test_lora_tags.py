"""Tags of motion LoRAs leave the prompt; everything else stays to the letter."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from motion.conditioning.lora_tags import MotionLoraRequest, take_motion_lora_tags
from motion.errors import SettingsError

NAMES = st.text(st.characters(exclude_characters=":<>=@", exclude_categories=["Cs"]), min_size=1, max_size=12)
TEXT = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=20)


@st.composite
def requests(draw):
    frames = draw(st.none() | st.lists(st.integers(0, 4000), min_size=2, max_size=2).map(sorted))
    return MotionLoraRequest(draw(NAMES), draw(st.floats(-2, 2)), *(frames or (None, None)))


def is_pan(name):
    return name in ("pan", "zoom")


@given(st.lists(st.tuples(TEXT, requests())), TEXT)
def test_tags_come_back_as_requests_and_the_rest_stays(parts, end):
    prompt = "".join(text + request.tag for text, request in parts) + end
    names = {request.name for _, request in parts}
    rest, found = take_motion_lora_tags(prompt, names.__contains__)
    assert found == tuple(request for _, request in parts)
    assert rest == "".join(text for text, _ in parts) + end


@given(st.text())
@example("a <lora:style:0.8>, <lora:style:x@0-15> <lyco:pan> <hypernet:h <lora:x:1> (b:1.2) [a:b:0.5] <lora:>")
def test_prompts_without_motion_loras_stay_to_the_letter(prompt):
    assert take_motion_lora_tags(prompt, lambda name: False) == (prompt, ())


@given(st.lists(st.sampled_from(["<lora:pan", "te=", "unet=", *"<>:@=-.09 "]), max_size=20).map("".join))
def test_any_prompt_is_read_or_refused(prompt):
    try:
        rest, found = take_motion_lora_tags(prompt, is_pan)
    except SettingsError:
        return
    assert (rest == prompt) == (not found)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:pan>", ("pan", 1.0, None, None)),
        ("<lora:pan:0.8>", ("pan", 0.8, None, None)),
        ("<lora:pan:-1>", ("pan", -1.0, None, None)),
        ("<lora:pan:.5@0-15>", ("pan", 0.5, 0, 15)),
        ("<lora:pan@3-3>", ("pan", 1.0, 3, 3)),
        ("<lora:pan:0.2:0.7>", ("pan", 0.7, None, None)),
        ("<lora:pan:0.2:0.7@4-8>", ("pan", 0.7, 4, 8)),
        ("<lora:pan:te=0.2:unet=-0.7>", ("pan", -0.7, None, None)),
        ("<lora:pan:te=0.3>", ("pan", 0.3, None, None)),
        ("<lora:pan:0.4:unet=1.5>", ("pan", 1.5, None, None)),
        ("<lyco:pan:0.5>", ("pan", 0.5, None, None)),
    ],
)
def test_forms(tag, expected):
    rest, found = take_motion_lora_tags(f"a{tag}, <lora:style:0.8>{tag} b", is_pan)
    assert rest == "a, <lora:style:0.8> b"
    assert found == (MotionLoraRequest(*expected),) * 2


def test_a_range_in_a_files_own_name_is_none():
    rest, found = take_motion_lora_tags("<lora:pan@0-7><lora:pan@0-7:0.5@1-2>", "pan@0-7".__eq__)
    assert rest == ""
    assert found == (MotionLoraRequest("pan@0-7"), MotionLoraRequest("pan@0-7", 0.5, 1, 2))


def test_order_is_kept():
    _, found = take_motion_lora_tags("<lora:zoom:2> <lora:pan> <lora:zoom:-2>", is_pan)
    assert [(request.name, request.weight) for request in found] == [("zoom", 2), ("pan", 1), ("zoom", -2)]


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("<lora:pan:strong>", "must be a number, got 'strong' in <lora:pan:strong>.*Write <lora:name:0.8>"),
        ("<lora:pan:>", "must be a number, got ''"),
        ("<lora:pan:0.8@0>", "must be a number, got '0.8@0'"),
        ("<lora:pan:0.8@-1-4>", "must be a number, got '0.8@-1-4'"),
        (f"<lora:pan:1@0-{'9' * 5000}>", "must be a number, got '1@0-9"),
        ("<lora:pan:x:1>", "must be a number, got 'x'"),
        ("<lora:pan:1:unet=x>", "must be a number, got 'x'"),
        ("<lora:pan:2.1>", "'pan' must be from -2 to 2, got 2.1"),
        ("<lora:pan:nan>", "'pan' must be from -2 to 2, got nan"),
        ("<lora:pan:-inf>", "'pan' must be from -2 to 2, got -inf"),
        ("<lora:pan:1@8-4>", "'pan' must be first-last, from 0, got 8-4"),
        ("<lora:pan:1:1:64>", "a name, weights and frames only, got <lora:pan:1:1:64>"),
        ("<lora:pan:1:dyn=64>", "a name, weights and frames only, got <lora:pan:1:dyn=64>"),
    ],
)
def test_refused(tag, message):
    with pytest.raises(SettingsError, match=message):
        take_motion_lora_tags(f"a {tag} b", is_pan)


def test_a_range_needs_both_ends():
    with pytest.raises(SettingsError, match="a first and a last frame, or neither"):
        MotionLoraRequest("pan", 1.0, 3)


def test_frame_weights():
    assert MotionLoraRequest("pan", 0.5).frame_weights(3) == (0.5, 0.5, 0.5)
    assert MotionLoraRequest("pan", 0.5, 1, 2).frame_weights(4) == (0.0, 0.5, 0.5, 0.0)
    with pytest.raises(SettingsError, match="must end by frame 3, the clip's last, got 2-4"):
        MotionLoraRequest("pan", 0.5, 2, 4).frame_weights(4)
