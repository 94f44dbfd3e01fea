"""Temporal layers in windows: equal to the slow way, without seams, and closed where the loop is."""

import math

import pytest
import torch

from motion.errors import InjectionError
from motion.models.frame_windows import AttentionWindows
from motion.models.temporal_transformer import TemporalTransformer
from motion.protocols import FrameWindows
from tests.networks import randomise
from tests.windows import averaging_transformer, make_windows, overwriting, run_in_windows, turning

CPU = torch.device("cpu")
CASES = {
    "static": {},
    "last one moved back": {"num_frames": 13},
    "shifted": {"schedule": "uniform", "step": 3},
    "looped": {"schedule": "looped", "step": 2},
    "closed": {"schedule": "uniform", "step": 1, "closed": True},
    "strided": {"schedule": "uniform", "stride": 2},
    "batched, the last one shorter": {"schedule": "batched", "num_frames": 13},
    "views": {"schedule": "views", "overlap": 6},
    "a short clip in a loop": {"num_frames": 8, "closed": True},
    "flat": {"method": "flat"},
}


@pytest.fixture(scope="module")
def transformer():
    return randomise(TemporalTransformer(32, num_heads=4, max_length=8), seed=2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("norm_over_frames", [False, True])
def test_equals_each_window_on_its_own(transformer, case, norm_over_frames):
    options = {"num_frames": 20, "length": 8, "overlap": 2} | CASES[case]
    windows = make_windows(**options)
    num_frames = options["num_frames"]
    x = torch.randn(2 * num_frames, 32, 2, 3, generator=torch.Generator().manual_seed(1))
    transformer.norm_over_frames = norm_over_frames
    result = transformer(x, num_frames, 0.7, AttentionWindows(windows, CPU))
    expected = run_in_windows(transformer, x, num_frames, windows, 0.7)
    transformer.norm_over_frames = False
    assert (result - expected).abs().max() <= 1e-5
    assert (result - x).abs().max() > 0.1


def test_a_whole_clip_as_one_window_is_what_it_is_without(transformer):
    x = torch.randn(8, 32, 2, 2, generator=torch.Generator().manual_seed(2))
    windows = FrameWindows((tuple(range(8)),), ((1.0,) * 8,))
    assert (transformer(x, 8, windows=AttentionWindows(windows, CPU)) - transformer(x, 8)).abs().max() <= 1e-5


def test_entries_do_not_see_one_another(transformer):
    windows = AttentionWindows(make_windows(20, 8, 2), CPU)
    one, other = torch.randn(2, 20, 32, 2, 2, generator=torch.Generator().manual_seed(3))
    together = transformer(torch.cat([one, other]), 20, windows=windows)
    apart = torch.cat([transformer(part, 20, windows=windows) for part in (one, other)])
    assert (together - apart).abs().max() <= 1e-5


def test_overlapping_windows_are_in_different_layers():
    windows = AttentionWindows(make_windows(64, 16, 4, "uniform", 1), CPU)
    for layer in windows.layers:
        assert len(set(layer.frames.tolist())) == len(layer.frames)
        assert len(layer.frames) % layer.length == 0
    assert sum(len(layer.frames) for layer in windows.layers) == 16 * len(windows.windows.windows)
    assert len(windows.layers) <= 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    module = randomise(TemporalTransformer(32, num_heads=4, max_length=8), seed=2)
    x = torch.randn(20, 32, 2, 2, generator=torch.Generator().manual_seed(1))
    windows = AttentionWindows(make_windows(20, 8, 2), CPU)
    expected = module(x, 20, windows=windows)
    result = module.to(dtype)(x.to(dtype), 20, windows=windows)
    assert result.dtype == dtype
    assert (result.float() - expected).abs().max() <= (0.05 if dtype == torch.float16 else 0.2)


def test_refuses_windows_that_do_not_fit(transformer):
    x = torch.zeros(20, 32, 1, 1)
    with pytest.raises(InjectionError, match="1 to 8 frame positions, got 16 frames"):
        transformer(x, 20, windows=AttentionWindows(make_windows(20, 16, 4), CPU))
    with pytest.raises(InjectionError, match="windows must be those of a clip of 20 frames, got windows of 21"):
        transformer(x, 20, windows=AttentionWindows(make_windows(21, 8, 4), CPU))


def steps_of(module, x, windows):
    """Size of the change to the next frame, the last one's to the first, in the temporal branch."""
    branch = module(x, len(x), windows=AttentionWindows(windows, CPU)) - x
    return (branch.roll(-1, 0) - branch).flatten(1).norm(dim=1)


@pytest.mark.parametrize("schedule", ["static", "uniform"])
def test_no_seams_at_the_borders_of_windows(schedule):
    module, x = averaging_transformer(), turning(64, angle=0.02)
    for step in range(6):
        windows = make_windows(64, 16, 4, schedule, step)
        steps = steps_of(module, x, windows)[:-1]
        assert steps.max() <= 1.1 * steps.median()
        assert steps_of(module, x, overwriting(windows))[:-1].max() > 1.25 * steps.median()


@pytest.mark.parametrize("schedule", ["uniform", "looped", "static", "views"])
def test_a_closed_loop_closes(schedule):
    module, num_frames = averaging_transformer(), 48
    x = turning(num_frames, angle=2 * math.pi / num_frames)
    for step in range(4):
        each = steps_of(module, x, make_windows(num_frames, 16, 15, schedule, step, closed=True))
        assert (each - each[-1]).abs().max() <= 1e-4
        windows = make_windows(num_frames, 16, 4, schedule, step, closed=True)
        each = steps_of(module, x, windows)
        assert (each[11::12] - each[-1]).abs().max() <= 1e-4  # the same place in the other windows
        assert each.max() <= 1.1 * each.median()
    open_ended = steps_of(module, x, make_windows(num_frames, 16, 4, "static"))
    assert open_ended[-1] > 1.2 * open_ended.median()


def test_a_clip_of_one_window_closes_too():
    module, x = averaging_transformer(), turning(16, angle=2 * math.pi / 16)
    each = steps_of(module, x, make_windows(16, 16, 15, closed=True))
    assert (each - each[-1]).abs().max() <= 1e-4
