"""Windows: every schedule, loop, stride and overlap, for clips of 1 to 400 frames and 1 to 60 steps."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motion.context.schedules import Context, van_der_corput, windows_of_step
from motion.settings import CONTEXT_SCHEDULES

GOLDENS = Path(__file__).resolve().parents[1] / "data" / "goldens"
NAMES = {"uniform_looped": "looped", "uniform_standard": "uniform", "static_standard": "static", "batched": "batched"}


@st.composite
def requests(draw):
    """(schedule, frames, context) of any request that isn't refused."""
    length = draw(st.integers(1, 64))
    context = Context(length, draw(st.integers(0, length - 1)), draw(st.integers(1, 8)), draw(st.booleans()))
    return draw(st.sampled_from(CONTEXT_SCHEDULES)), draw(st.integers(1, 400)), context


@settings(max_examples=300)
@given(requests(), st.integers(0, 59))
def test_every_step_covers_every_frame_and_no_window_repeats_one(request_, step):
    schedule, num_frames, context = request_
    windows = windows_of_step(schedule, num_frames, context, step)
    assert set().union(*windows) == set(range(num_frames))
    for window in windows:
        assert len(set(window)) == len(window) <= context.length
    assert len(set(windows)) == len(windows)
    assert windows == windows_of_step(schedule, num_frames, context, step)


@given(requests(), st.integers(0, 59))
def test_only_a_loop_joins_the_ends(request_, step):
    schedule, num_frames, context = request_
    if schedule == "looped" or context.closed_loop:
        return
    for window in windows_of_step(schedule, num_frames, context, step):
        assert list(window) == sorted(window)


@given(requests(), st.integers(0, 59))
def test_a_closed_loop_has_a_window_over_its_ends(request_, step):
    schedule, num_frames, context = request_
    if not context.closed_loop or schedule == "batched" or not context.overlap or num_frames == 1:
        return
    pairs = {
        pair for window in windows_of_step(schedule, num_frames, context, step) for pair in itertools.pairwise(window)
    }
    assert {(frame, (frame + 1) % num_frames) for frame in range(num_frames)} <= pairs


@given(requests(), st.integers(0, 59))
def test_neighbours_share_the_overlap(request_, step):
    """Along the line: each border lies in another window, with as many frames on its far side as the overlap says."""
    schedule, num_frames, context = request_
    if schedule not in ("static", "views", "uniform") or context.closed_loop:
        return
    starts = sorted(
        window[0] for window in windows_of_step(schedule, num_frames, Context(context.length, context.overlap), step)
    )
    assert all(before + context.length - after >= context.overlap for before, after in itertools.pairwise(starts))


def test_a_shift_in_each_step_moves_the_borders():
    context = Context(16, 4)
    steps = [windows_of_step("uniform", 64, context, step) for step in range(32)]
    borders = {window[0] for windows in steps for window in windows}
    assert borders == set(range(49))
    assert {windows_of_step("static", 64, context, step) for step in range(12)} == {steps[0]}


def test_a_long_clip_costs_what_its_windows_say():
    """11 windows of 16 for 128 frames: 1.375 times their frames."""
    counts = [len(windows_of_step("uniform", 128, Context(16, 4), step)) for step in range(12)]
    assert counts[0] == 11
    assert set(counts) == {11, 12}


@pytest.mark.parametrize("schedule", CONTEXT_SCHEDULES)
@pytest.mark.parametrize("num_frames", [1, 5, 16])
def test_a_clip_that_fits_is_one_plain_window(schedule, num_frames):
    for step in range(4):
        assert windows_of_step(schedule, num_frames, Context(16, 4, 2), step) == (tuple(range(num_frames)),)


def test_first_elements_of_the_sequence():
    assert [van_der_corput(index) for index in range(8)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]


def golden(name):
    with gzip.open(GOLDENS / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)["rows"]


def expected_of(schedule, num_frames, context, windows):
    """What other programs run, without what the docstrings say that ours does in another way."""
    if num_frames <= context.length and not context.closed_loop:
        return [list(range(num_frames))]
    return [window for window in windows if (context.length - 1) * ((window[1] - window[0]) % num_frames) < num_frames]


def test_looped_windows_equal_both_other_programs():
    rows = [row[1:] for row in golden("context_ade") if row[0] == "uniform_looped"] + golden("context_animatediff_cli")
    compared = 0
    for step, num_frames, length, stride, overlap, closed_loop, windows in rows:
        if closed_loop and windows == [list(range(num_frames))]:
            continue  # the others don't close a clip that is no longer than a window
        context = Context(length, overlap, stride, closed_loop)
        expected = expected_of("looped", num_frames, context, windows)
        assert [list(window) for window in windows_of_step("looped", num_frames, context, step)] == expected
        compared += 1
    assert compared > 1500


@pytest.mark.parametrize("theirs", ["static_standard", "batched", "uniform_standard"])
def test_other_windows_equal_those_of_animatediff_evolved(theirs):
    rows = [row[1:] for row in golden("context_ade") if row[0] == theirs]
    if theirs == "uniform_standard":  # ours shifts the windows in another way, and strided ones stay on the line
        rows = [row for row in rows if row[0] == 0 and row[3] == 1]
    assert len(rows) == 35
    for step, num_frames, length, stride, overlap, closed_loop, windows in rows:
        context = Context(length, overlap, stride, closed_loop)
        got = windows_of_step(NAMES[theirs], num_frames, context, step)
        assert [list(window) for window in got] == windows


@pytest.mark.parametrize(("num_frames", "length", "starts"), [(32, 16, range(0, 17, 4)), (24, 8, range(0, 17, 4))])
def test_views_are_those_of_free_noise(num_frames, length, starts):
    """Recorded from diffusers 0.42.1 with a hop of 4; at 17 frames theirs ends at frame 15, ours doesn't."""
    windows = windows_of_step("views", num_frames, Context(length, length - 4), 0)
    assert windows == tuple(tuple(range(start, start + length)) for start in starts)
    assert windows_of_step("views", 17, Context(16, 12), 0)[-1][-1] == 16


@pytest.mark.parametrize(
    ("schedule", "num_frames", "context", "step", "message"),
    [
        ("round", 32, Context(16, 4), 0, "must be one of uniform, looped, .* got 'round'"),
        ("static", 0, Context(16, 4), 0, "No windows over 0 frames"),
        ("static", 32, Context(16, 16), 0, "overlap=16"),
        ("static", 32, Context(16, 4, 0), 0, "stride=0"),
        ("static", 32, Context(16, 4), -1, "step -1"),
    ],
)
def test_refuses(schedule, num_frames, context, step, message):
    with pytest.raises(ValueError, match=message):
        windows_of_step(schedule, num_frames, context, step)
