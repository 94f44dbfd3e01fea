"""What a clip's motion strength is, by constant, list or keyframes, and in which steps."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion.conditioning.motion_strength import MotionStrength, frame_values
from motion.errors import SettingsError
from motion.settings import MotionSettings

VALUES = st.floats(0, 2).map(lambda value: round(value, 3))


def strength(**fields):
    return MotionStrength.resolve(MotionSettings.from_mapping(fields))


@given(VALUES, st.integers(1, 64))
def test_constant_list_and_keyframes_of_one_value_are_the_same(value, frames):
    one = frame_values(f"{value}", frames)
    assert one == (value,) * frames
    assert frame_values(", ".join([f"{value}"] * frames), frames) == one
    assert frame_values(f"0: {value}", frames) == one
    assert frame_values(f"0-0.5 ease-in: {value}, -1: {value}" if frames > 2 else f"0 hold: {value}", frames) == one


@given(st.lists(VALUES, min_size=2, max_size=32))
def test_a_list_and_a_keyframe_for_each_frame_are_the_same(values):
    text = "; ".join(f"{frame}: {value}" for frame, value in enumerate(values))
    assert frame_values(", ".join(map(str, values)), len(values)) == frame_values(text, len(values)) == tuple(values)
    assert frame_values(" ".join(map(str, values)), len(values)) == tuple(values)


@pytest.mark.parametrize(
    ("text", "closed_loop", "expected"),
    [
        ("", False, (1, 1, 1, 1, 1)),
        ("0: 1, 0.5: 0.5, -1: 1", False, (1, 0.75, 0.5, 0.75, 1)),
        ("0 hold: 1, 3: 0", False, (1, 1, 1, 0, 0)),
        ("0 ease-in: 0, 4: 1", False, (0, 0.0625, 0.25, 0.5625, 1)),
        ("1-2: 2, -1: 1", False, (2, 2, 2, 1.5, 1)),
        ("0: 0, 2: 2", False, (0, 1, 2, 2, 2)),
        ("0: 0, 3: 2", True, (0, 2 / 3, 4 / 3, 2, 1)),
        (" 2 , 1;0.5 0,1, ", False, (2, 1, 0.5, 0, 1)),
    ],
)
def test_values_of_frames(text, closed_loop, expected):
    assert frame_values(text, 5, closed_loop=closed_loop) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1, 0.8", "one for each \\(4\\), or keyframes, got 2 values"),
        ("1, fast, 1, 1", "entry 'fast': motion must be a number from 0 to 2, got 'fast'"),
        ("1, 2.5, 1, 1", "entry '2.5': motion must be a number from 0 to 2"),
        ("nan", "entry 'nan': motion must be a number"),
        ("0: 1, 1: -1", "entry '1: -1': motion must be a number from 0 to 2, got '-1'"),
        ("0: 1, 0.5", "entry '0.5': a keyframe begins with a frame"),
        ("0: 1, first: 1", "entry 'first: 1': a keyframe begins with a frame"),
        ("0: 1,, 2: 1", "entry '': a keyframe begins"),
        ("0 hodl: 1", "entry '0 hodl: 1': A keyframe takes one each of hold"),
        ("0 cfg=5: 1", "entry '0 cfg=5: 1': cfg and motion belong into the prompt"),
        ("0: 1, 4: 1", "'4: 1': Frame 4 is outside the clip, whose frames are 0 to 3"),
        ("0: 1, 1.5: 1", "'1.5: 1': A place with a point is a fraction"),
        ("0-2: 1, 1: 1", "two for frame 1 of 4: '0-2: 1' and '1: 1'"),
        ("0:1:1", "entry '0:1:1': motion must be a number"),
    ],
)
def test_what_is_malformed_is_quoted(text, message):
    with pytest.raises(SettingsError, match=f"`motion_scale_frames`.*{message}") as caught:
        frame_values(text, 4)
    assert vars(caught.value)["status_code"] == 422


def test_scale_frames_and_prompt_multiply():
    settings = MotionSettings(num_frames=3, motion_scale=0.5, motion_scale_frames="1, 0.5, 2")
    assert MotionStrength.resolve(settings).scales == (0.5, 0.25, 1.0)
    assert MotionStrength.resolve(settings, (1.0, 2.0, 0.0)).scales == (0.5, 0.5, 0.0)
    assert MotionStrength.resolve(MotionSettings(motion_scale=1.3)).scales == (1.3,) * 16
    assert strength(motion_scale_frames=1.3) == strength(motion_scale=1.3)
    assert strength(motion_scale_frames=[0, 0], num_frames=2).is_zero
    assert not strength(motion_scale_frames="0, 1", num_frames=2).is_zero


@given(st.integers(1, 200), st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True))
def test_ranges_that_meet_share_no_step_and_leave_none_out(num_steps, cuts):
    ranges = [MotionStrength((1.0,), *ends) for ends in pairwise([0.0, *(cut / 100 for cut in sorted(cuts)), 1.0])]
    for step in range(num_steps):
        assert sum(each.is_in_step(step, num_steps) for each in ranges) == 1
    assert MotionStrength((1.0,)).is_in_every_step


@pytest.mark.parametrize("end", [0.6, 0.6000000000000001, 0.5999999999999999])
def test_a_share_of_the_steps_is_that_many_of_them(end):
    """Also as a page's slider rounds it."""
    moving = MotionStrength((1.0,), 0.2, end)
    assert [step for step in range(20) if moving.is_in_step(step, 20)] == list(range(4, 12))


def test_no_steps_are_refused():
    with pytest.raises(SettingsError, match=r"`motion_start` must be less than `motion_end` \(0.3\), got 0.5"):
        strength(motion_start=0.5, motion_end=0.3)
    with pytest.raises(SettingsError, match=r"got 0.5 to 0.6, which is none of 3 steps"):
        strength(motion_start=0.5, motion_end=0.6).check_steps(3)
    strength(motion_start=0.5, motion_end=0.6).check_steps(4)


def test_in_words():
    assert str(strength(motion_scale=0.5)) == "scale 0.5"
    assert str(strength(motion_scale_frames="0: 0.5, -1: 1", motion_end=0.4)) == (
        "scale 0.5 to 1, from 0% to 40% of the steps"
    )
