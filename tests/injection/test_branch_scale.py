"""Strength of the motion by frame and by call, inside a UNet."""

import pytest
import torch

from motion.errors import InjectionError
from motion.injection import injected
from motion.models.custom_motion import CustomMotionModel
from motion.protocols import FrameRows, WindowRun
from tests.injection.test_step_modules import Recorder
from tests.networks import FRAMES, assert_same_state, inputs, make_motion, state_of
from tests.windows import make_windows

SCALES = (0.0, 0.5, 1.0, 1.5)
LENGTH = 2
WINDOWS = make_windows(FRAMES, LENGTH, 1)


def in_middle(**options):
    """A motion model of one module, that keeps what it is given."""
    module = Recorder(64, **options)
    return module, CustomMotionModel({"mid_block.motion_modules.0": module})


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_frames_that_all_have_one_scale_are_a_clip_of_that_scale(unet, motion, value):
    results = []
    for scale in (value, (value,) * FRAMES, [value] * FRAMES):
        with injected(unet, motion, FRAMES, scale=scale):
            results.append(unet(*inputs(2 * FRAMES)))
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_modules_output_is_scaled_by_hand(unet):
    """One site, so that what comes before it is the same whatever its scale."""
    seen = []
    for scale in (SCALES, 1.0):
        module, model = in_middle()
        with injected(unet, model, FRAMES, scale=scale):
            site = unet.middle_block[1].register_forward_hook(lambda layer, args, output: seen.append(output))
            unet(*inputs(2 * FRAMES))
            site.remove()
        x = module.calls[0][0]
    scaled, whole = seen
    branch = whole - x
    by_hand = x + torch.tensor(SCALES * 2)[:, None, None, None] * branch
    torch.testing.assert_close(scaled, by_hand, atol=1e-5, rtol=0)
    assert torch.equal(scaled[::FRAMES], x[::FRAMES])
    assert (scaled[1] != x[1]).any()


def test_modules_get_one_number_for_each_of_their_rows_in_any_layout(unet):
    interleaved = FrameRows(tuple(tuple(range(entry, 2 * FRAMES, 2)) for entry in (0, 1)))
    results = []
    for rows_of_call in (None, lambda num_rows: interleaved):
        module, model = in_middle()
        args = inputs(2 * FRAMES)
        if rows_of_call is not None:
            args = [arg[torch.argsort(torch.tensor(interleaved.rows).flatten())] for arg in args]
        with injected(unet, model, FRAMES, scale=SCALES, rows_of_call=rows_of_call):
            result = unet(*args)
        given = module.calls[0][2]
        assert given.shape == (2 * FRAMES, 1, 1, 1)
        assert given.dtype == torch.float32
        assert tuple(given.flatten().tolist()) == SCALES * 2
        results.append(result if rows_of_call is None else result[torch.tensor(interleaved.rows).flatten()])
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)


def test_each_window_of_the_unet_gets_the_scales_of_its_frames(unet):
    module, model = in_middle(max_length=LENGTH)
    with injected(unet, model, FRAMES, scale=(0.5, 0.5, 1.0, 1.5), windows=WindowRun(lambda: WINDOWS, "unet")):
        unet(*inputs(2 * FRAMES))
    given = [call[2] for call in module.calls]
    assert WINDOWS.windows == ((0, 1), (1, 2), (2, 3))
    assert given[0] == 0.5
    assert [scale.flatten().tolist() for scale in given[1:]] == [[0.5, 1.0] * 2, [1.0, 1.5] * 2]


def test_windows_of_frames_without_motion_count_as_run(unet):
    module, model = in_middle(max_length=LENGTH)
    with injected(unet, model, FRAMES, scale=(0, 0, 0, 1), windows=WindowRun(lambda: WINDOWS, "unet")) as injection:
        unet(*inputs(FRAMES))
    assert injection.num_calls == 1
    assert len(module.calls) == 1


@pytest.mark.parametrize("scope", ["attention", "unet"])
def test_in_windows_frames_of_one_scale_are_a_clip_of_that_scale(unet, scope):
    motion, results = make_motion(max_length=LENGTH), []
    for scale in (0.7, (0.7,) * FRAMES):
        with injected(unet, motion, FRAMES, scale=scale, windows=WindowRun(lambda: WINDOWS, scope)):
            results.append(unet(*inputs(2 * FRAMES)))
    assert torch.equal(*results)


@pytest.mark.parametrize("norm", [False, True])
def test_calls_without_motion_are_the_bare_unets_and_the_others_not(unet, norm):
    motion, moves = make_motion(unet_norm_over_frames=norm), []
    plain = unet(*inputs(2 * FRAMES))
    with injected(unet, motion, FRAMES):
        moving = unet(*inputs(2 * FRAMES))
    with injected(unet, motion, FRAMES, moves_in_call=lambda: moves[-1]) as injection:
        for now, expected in ((True, moving), (False, plain), (True, moving), (False, plain)):
            moves.append(now)
            assert torch.equal(unet(*inputs(2 * FRAMES)), expected)
            assert injection.moves is now
    assert injection.num_calls == 4
    assert not torch.equal(moving, plain)


def test_a_module_that_is_left_out_is_an_error_in_calls_without_motion_too(unet, motion):
    with injected(unet, motion, FRAMES, moves_in_call=lambda: False):
        site = unet.middle_block[1]
        hooks = dict(site._forward_hooks)
        site._forward_hooks.clear()
        with pytest.raises(InjectionError, match="should have run once each in a UNet call"):
            unet(*inputs(FRAMES))
        site._forward_hooks.update(hooks)


@pytest.mark.parametrize("windows", [None, WindowRun(lambda: WINDOWS, "unet")])
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_leaves_no_trace(unet, windows, error):
    motion = make_motion(unet_norm_over_frames=True)
    before, own, plain = state_of(unet), state_of(motion), unet(*inputs(FRAMES))
    calls = []

    def moves():
        calls.append(error)
        if error is not None and len(calls) == 2:
            raise error
        return len(calls) == 1

    def run():
        with injected(unet, motion, FRAMES, scale=SCALES, moves_in_call=moves, windows=windows):
            unet(*inputs(FRAMES))
            unet(*inputs(FRAMES))

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert_same_state(before, state_of(unet))
    assert_same_state(own, state_of(motion))
    assert torch.equal(unet(*inputs(FRAMES)), plain)


def test_refuses_other_numbers_than_frames(unet, motion):
    with pytest.raises(InjectionError, match=r"one for each of the clip's 4 frames, got 3 numbers"):
        with injected(unet, motion, FRAMES, scale=(1, 1, 1)):
            pytest.fail("must not get here")
