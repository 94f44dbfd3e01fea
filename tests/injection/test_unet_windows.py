"""Window scope "unet": equal to running each window's frames alone and blending, with nothing left behind."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from motion.errors import InjectionError
from motion.injection import injected
from motion.injection.unet_windows import forward_replaced, take_rows
from motion.models.custom_motion import CustomMotionModel
from motion.protocols import FrameRows, FrameWindows, WindowRun
from tests.injection.test_step_modules import Recorder
from tests.networks import assert_same_state, inputs, make_motion, make_unet, state_of
from tests.windows import make_windows

FRAMES, LENGTH = 10, 6
WINDOWS = make_windows(FRAMES, LENGTH, 2, "uniform", 1)
INTERLEAVED = FrameRows(
    (*(tuple(2 * frame + entry for frame in range(FRAMES)) for entry in range(2)), tuple(range(2 * FRAMES, 3 * FRAMES)))
)
LAYOUTS = {
    "one entry": FrameRows.contiguous(FRAMES, FRAMES),
    "in turn": FrameRows.contiguous(2 * FRAMES, FRAMES),
    "uncond first": FrameRows((tuple(range(FRAMES, 2 * FRAMES)), tuple(range(FRAMES)))),
    "interleaved": INTERLEAVED,
}


@pytest.fixture(scope="module")
def motion():
    return make_motion(max_length=LENGTH)


def in_windows(windows=WINDOWS, around_window=None):
    return WindowRun(lambda: windows, "unet", around_window)


def call_inputs(rows, seed=3):
    """Rows that differ in everything: latents, timestep, context."""
    x, t, context = inputs(rows, seed)
    return x, t + 10 * torch.arange(rows), context


def each_window_alone(unet, motion, args, rows):
    total = torch.zeros_like(args[0])
    for window, weights in zip(WINDOWS.windows, WINDOWS.weights, strict=True):
        for entry in rows.rows:
            places = [entry[frame] for frame in window]
            with injected(unet, motion, len(window)):
                predicted = unet(*(arg[places] for arg in args))
            total[places] += torch.tensor(weights)[:, None, None, None] * predicted
    return total


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", [False, True])
def test_equals_each_window_alone(unet, norm, layout):
    motion, rows = make_motion(max_length=LENGTH, unet_norm_over_frames=norm), LAYOUTS[layout]
    args = call_inputs(rows.num_rows)
    kept = [arg.clone() for arg in args]
    with injected(unet, motion, FRAMES, windows=in_windows(), rows_of_call=lambda num_rows: rows) as injection:
        result = unet(args[0], timesteps=args[1], context=args[2])
    assert injection.num_calls == 1
    assert (result - each_window_alone(unet, motion, args, rows)).abs().max() <= 1e-5
    assert all(torch.equal(arg, before) for arg, before in zip(args, kept, strict=True))


def test_one_window_is_the_plain_path(unet, motion):
    args = call_inputs(2 * LENGTH)
    with injected(unet, motion, LENGTH):
        expected = unet(*args)
    with injected(unet, motion, LENGTH, windows=in_windows(None, pytest.fail)):
        assert torch.equal(unet(*args), expected)
    whole = FrameWindows((tuple(range(LENGTH)),), ((1.0,) * LENGTH,))
    with injected(unet, motion, LENGTH, windows=in_windows(whole)):
        assert (unet(*args) - expected).abs().max() <= 1e-5


def test_half_precision_is_blended_in_single(unet, motion):
    args = [arg.to(torch.bfloat16) if arg.dim() > 1 else arg for arg in call_inputs(2 * FRAMES)]
    narrow, own = make_unet().to(torch.bfloat16), make_motion(max_length=LENGTH).to(torch.bfloat16)
    with injected(narrow, own, FRAMES, windows=in_windows()):
        result = narrow(*args)
    with injected(unet, motion, FRAMES, windows=in_windows()):
        expected = unet(*(arg.float() for arg in args))
    assert result.dtype == torch.bfloat16
    assert (result.float() - expected).abs().mean() <= 0.05 * expected.abs().mean()


def test_modules_that_ask_for_the_step_get_that_of_their_rows(unet):
    motion = CustomMotionModel({"mid_block.motion_modules.0": Recorder(64, max_length=LENGTH)})
    args = call_inputs(2 * FRAMES)
    with injected(unet, motion, FRAMES, windows=in_windows()):
        unet(*args)
    (module,) = motion.site_modules().values()
    for window, (x, num_frames, _, step) in zip(WINDOWS.windows, module.calls, strict=True):
        places = [row + frame for row in (0, FRAMES) for frame in window]
        assert (len(x), num_frames) == (2 * LENGTH, LENGTH)
        assert torch.equal(step.timestep, args[1][places])
        assert torch.equal(step.context, args[2][places])


def test_each_window_is_announced_and_knows_its_frames_and_rows(unet, motion):
    announced, seen = [], []

    @contextmanager
    def around(window):
        announced.append(window)
        yield

    with injected(
        unet, motion, FRAMES, windows=in_windows(around_window=around), rows_of_call=lambda num_rows: INTERLEAVED
    ) as injection:
        handle = unet.middle_block.register_forward_hook(
            lambda *args: seen.append(tuple(injection.frames_of_call(LENGTH)))
        )
        unet(*call_inputs(3 * FRAMES))
        handle.remove()
        assert tuple(injection.frames_of_call(FRAMES)) == tuple(range(FRAMES))
    assert tuple(seen) == tuple(window.frames for window in announced) == WINDOWS.windows
    assert [(window.index, window.count) for window in announced] == [(index, len(seen)) for index in range(len(seen))]
    for window in announced:
        assert (window.num_frames, window.num_rows) == (FRAMES, 3 * FRAMES)
        assert window.rows == tuple(entry[frame] for entry in INTERLEAVED.rows for frame in window.frames)


def test_a_clip_longer_than_any_other_way(unet, motion):
    """A module that can't run in windows, and one whose table is shorter than the clip."""

    class Whole(nn.Module):
        channels, max_length = 64, LENGTH

        def forward(self, x, num_frames, scale=1.0):
            return x + num_frames

    custom = CustomMotionModel({"mid_block.motion_modules.0": Whole()})
    for model in (custom, motion):
        with injected(unet, model, FRAMES, windows=in_windows()):
            assert torch.isfinite(unet(*call_inputs(FRAMES))).all()
    with pytest.raises(InjectionError, match="choose the window scope 'unet'"):
        with injected(unet, custom, FRAMES, windows=WindowRun(lambda: WINDOWS)):
            pytest.fail("must not get here")


class StopError(BaseException):
    """As hosts' samplers know it."""


@pytest.mark.parametrize("place", ["before a window", "inside a window", "after the call", "a layer that fails"])
def test_a_stop_leaves_no_trace(unet, place):
    motion = make_motion(max_length=LENGTH, unet_norm_over_frames=True)
    before, own, plain = state_of(unet), state_of(motion), unet(*call_inputs(FRAMES))
    windows = []

    @contextmanager
    def around(window):
        windows.append(window)
        if place == "before a window" and window.index == 1:
            raise StopError
        yield

    def fail(module, args):
        if place in ("inside a window", "a layer that fails") and len(windows) == 2:
            raise StopError if place == "inside a window" else ZeroDivisionError

    handle = unet.output_blocks[2].register_forward_pre_hook(fail)
    with pytest.raises((StopError, ZeroDivisionError)):
        with injected(unet, motion, FRAMES, windows=in_windows(around_window=around)):
            unet(*call_inputs(FRAMES))
            raise StopError
    handle.remove()
    assert_same_state(before, state_of(unet))
    assert_same_state(own, state_of(motion))
    assert torch.equal(unet(*call_inputs(FRAMES)), plain)


def test_the_next_call_works_after_one_that_failed_in_mid_window(unet, motion):
    args, calls = call_inputs(FRAMES), []

    def fail_once(module, args):
        calls.append(len(args[0]))
        if len(calls) == 2:
            raise ZeroDivisionError

    handle = unet.middle_block.register_forward_pre_hook(fail_once)
    with injected(unet, motion, FRAMES, windows=in_windows()):
        with pytest.raises(ZeroDivisionError):
            unet(*args)
        result = unet(*args)
    handle.remove()
    assert calls == [LENGTH] * (2 + len(WINDOWS.windows))
    assert (result - each_window_alone(unet, motion, args, LAYOUTS["one entry"])).abs().max() <= 1e-5


def test_a_motion_module_that_is_left_out_of_one_window_is_an_error(unet, motion):
    site, calls = unet.middle_block[1], []

    @contextmanager
    def around(window):
        calls.append(window)
        hooks = dict(site._forward_hooks)
        if window.index == 1:
            site._forward_hooks.clear()
        yield
        site._forward_hooks.update(hooks)

    with pytest.raises(InjectionError, match=r"should have run once each in a UNet call.*mid_block"):
        with injected(unet, motion, FRAMES, windows=in_windows(around_window=around)):
            unet(*call_inputs(FRAMES))
    assert [window.index for window in calls] == [0, 1]
    assert not site._forward_hooks


def test_a_neighbours_forward_is_kept_and_ours_is_never_left_in_it(unet, motion):
    calls, inner = [], unet.forward

    def neighbour(*args, **kwargs):
        calls.append(len(args[0]))
        return inner(*args, **kwargs)

    unet.forward = neighbour  # as ControlNet does
    with injected(unet, motion, FRAMES, windows=in_windows()):
        unet(*call_inputs(FRAMES))
    assert unet.forward is neighbour
    del unet.forward
    assert calls == [LENGTH] * len(WINDOWS.windows)

    with forward_replaced(unet, lambda forward, args, kwargs: pytest.fail("must not run")):
        ours = unet.forward
        unet.forward = lambda *args: ours(*args)  # and stays there
    assert torch.equal(unet(*call_inputs(FRAMES)), inner(*call_inputs(FRAMES)))
    del unet.forward


def test_a_neighbour_that_goes_round_the_windows_is_an_error(unet, motion):
    inner = unet.forward
    with pytest.raises(InjectionError, match="should have run once for each window"):
        with injected(unet, make_motion(max_length=FRAMES), FRAMES, windows=in_windows()):
            ours, unet.forward = unet.forward, inner
            try:
                unet(*call_inputs(FRAMES))
            finally:
                unet.forward = ours
    assert "forward" not in vars(unet)


def test_what_has_rows_is_copied_and_what_all_rows_share_is_not():
    per_row, shared, table = torch.randn(4, 3), torch.randn(1, 3), torch.randn(7)
    places = torch.tensor([3, 1])
    control = {"input": [per_row, None], "output": (shared,), "cond_indices": [2, 3], "uncond_indices": [0, 1]}
    part = take_rows((per_row, shared, table, 5, control), 4, places)
    assert torch.equal(part[0], per_row[[3, 1]])
    part[0].zero_()
    assert (per_row != 0).all()
    assert part[1] is shared
    assert part[2] is table
    assert part[3] == 5
    assert torch.equal(part[4]["input"][0], per_row[[3, 1]])
    part[4]["input"].pop()  # as Forge's UNet takes its control
    assert len(control["input"]) == 2
    assert part[4]["output"][0] is shared
    assert (part[4]["cond_indices"], part[4]["uncond_indices"]) == ([0], [1])
