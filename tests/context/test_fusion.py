"""Weights of windows: their shapes, and that a frame's add up to one."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion.context.fusion import fuse_weights, window_shape
from motion.context.schedules import Context, windows_of_step
from motion.settings import FUSE_METHODS
from tests.context.test_schedules import GOLDENS, requests

methods = st.sampled_from(FUSE_METHODS)


@given(requests(), st.integers(0, 59), methods)
def test_weights_of_a_frame_sum_to_one_and_a_constant_stays(request_, step, method):
    schedule, num_frames, context = request_
    windows = windows_of_step(schedule, num_frames, context, step)
    weights = fuse_weights(method, windows, num_frames, context.overlap, closed_loop=context.closed_loop)
    sums, blended = [0.0] * num_frames, [0.0] * num_frames
    for window, shape in zip(windows, weights, strict=True):
        for frame, weight in zip(window, shape, strict=True):
            assert 0 < weight <= 1
            sums[frame] += weight
            blended[frame] += weight * -3.7
    assert all(math.isclose(total, 1, abs_tol=1e-12) for total in sums)
    assert all(math.isclose(value, -3.7, abs_tol=1e-12) for value in blended)


@pytest.mark.parametrize("method", FUSE_METHODS)
def test_shapes_are_symmetric_inside_a_clip(method):
    for length in (1, 2, 15, 16):
        shape = window_shape(method, tuple(range(5, 5 + length)), 100, 1)
        assert shape == pytest.approx(shape[::-1])
        assert max(shape) == shape[(length - 1) // 2]


@pytest.mark.parametrize("method", ["flat", "pyramid"])
def test_shapes_equal_those_of_animatediff_evolved(method):
    golden = json.loads((GOLDENS / "context_weights.json").read_text())["per_length"]
    assert len(golden) >= 4
    for length, shapes in golden.items():
        assert list(window_shape(method, tuple(range(int(length))), 100, 4)) == shapes[method]


def test_linear_overlap_equals_that_of_animatediff_evolved():
    golden = json.loads((GOLDENS / "context_weights.json").read_text())["overlap_linear"]
    assert len(golden) == 3
    for case in golden:
        first, last = case["idxs"]
        shape = window_shape("overlap-linear", tuple(range(first, last + 1)), case["full_length"], case["overlap"])
        assert shape == pytest.approx(case["weights"], abs=1e-6)


def test_relative_weights_are_those_of_the_running_mean():
    """AnimateDiff-Evolved takes each window into a mean with bias max(.01, 1 - |i - m| / ((b - a + .01) / 2))."""
    shape = window_shape("relative", tuple(range(8, 24)), 100, 4)
    assert shape == pytest.approx([max(0.01, 1 - abs(i - 15.5) / (15.01 / 2)) for i in range(8, 24)])


def test_ends_of_a_clip_have_no_ramp_unless_it_is_a_loop():
    first = tuple(range(16))
    assert window_shape("overlap-linear", first, 64, 4)[0] == 1
    assert window_shape("overlap-linear", first, 64, 4, closed_loop=True)[0] < 1e-6


def test_refuses_an_unknown_method():
    windows = windows_of_step("static", 32, Context(16, 4), 0)
    with pytest.raises(ValueError, match=r"must be one of pyramid, .* got 'median'"):
        fuse_weights("median", windows, 32, 4)
