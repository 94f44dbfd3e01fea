"""No seams at the borders of windows, and loops that close, through a whole UNet in both scopes.

The UNet lets its input through, and its motion module drifts by a constant: what comes out is known, up to the borders.
"""

import math

import pytest
import torch
from torch import nn

from motion.injection import injected
from motion.models.custom_motion import CustomMotionModel
from motion.models.unet import UNetConfig, UNetModel
from motion.protocols import WindowRun
from tests.windows import DRIFT_CHANNELS, SHARE, averaging_transformer, make_windows, overwriting, turning

LENGTH = 16


@pytest.fixture(scope="module")
def unet():
    """Input to 32 copies, past all blocks to the last motion module, through the final norm, and back to 4 channels."""
    model = UNetModel(
        UNetConfig(model_channels=DRIFT_CHANNELS, channel_mult=(1,), num_res_blocks=1, transformer_depth=(0,))
    )
    model.requires_grad_(False).eval()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    copies = torch.arange(DRIFT_CHANNELS)
    model.input_blocks[0][0].weight[copies, copies % 4, 1, 1] = 1
    model.output_blocks[-1][0].skip_connection.weight[copies, DRIFT_CHANNELS + copies] = 1
    norm, _, last = model.out
    nn.init.ones_(norm.weight)
    for out, (plus, minus) in enumerate([(0, 1), (2, 3)]):  # silu(a) - silu(-a) is a
        last.weight[out, plus::4, 1, 1], last.weight[out, minus::4, 1, 1] = 1 / 32, -1 / 32
    return model


@pytest.fixture(scope="module")
def motion():
    """Its site gives twice the frame and twice the share: beside a branch alone, the same drift and the same seams."""
    return CustomMotionModel({"up_blocks.0.motion_modules.1": averaging_transformer(2 * SHARE)})


def steps_of(unet, motion, x, windows, scope):
    """Size of the change to the next frame, the last one's to the first, in the UNet's output."""
    frames = len(x)
    args = x, torch.zeros(frames), torch.zeros(frames, 1, unet.config.context_dim)
    with injected(unet, motion, frames, windows=WindowRun(lambda: windows, scope)):
        predicted = unet(*args)
    return (predicted.roll(-1, 0) - predicted).flatten(1).norm(dim=1)


def test_the_unet_lets_its_input_through_and_the_module_drifts(unet, motion):
    x = turning(LENGTH, 0.02, channels=4)
    plain = unet(x, torch.zeros(LENGTH), torch.zeros(LENGTH, 1, 768))
    assert (plain[:, :2] - x[:, ::2]).abs().max() <= 1e-4
    steps = steps_of(unet, motion, x, None, "attention")[:-1]
    assert steps.max() <= 1.001 * steps.min()
    assert steps.median() == pytest.approx(2**0.5 * 0.02 / (1 + SHARE), rel=1e-3)


@pytest.mark.parametrize("scope", ["attention", "unet"])
@pytest.mark.parametrize("schedule", ["static", "uniform"])
def test_no_seams_at_the_borders_of_windows(unet, motion, scope, schedule):
    x = turning(64, 0.02, channels=4)
    for step in range(4):
        windows = make_windows(64, LENGTH, 4, schedule, step)
        steps = steps_of(unet, motion, x, windows, scope)[:-1]
        assert steps.max() <= 1.1 * steps.median()
        seams = steps_of(unet, motion, x, overwriting(windows), scope)[:-1]
        assert seams.max() > 1.25 * seams.median()


@pytest.mark.parametrize("scope", ["attention", "unet"])
@pytest.mark.parametrize("schedule", ["uniform", "looped", "static", "views"])
def test_a_closed_loop_closes(unet, motion, scope, schedule):
    frames = 48
    x = turning(frames, 2 * math.pi / frames, channels=4)
    for step in range(2):
        windows = make_windows(frames, LENGTH, LENGTH - 1, schedule, step, closed=True)
        steps = steps_of(unet, motion, x, windows, scope)
        assert (steps - steps[-1]).abs().max() <= 1e-4
        windows = make_windows(frames, LENGTH, 4, schedule, step, closed=True)
        steps = steps_of(unet, motion, x, windows, scope)
        assert (steps[11::12] - steps[-1]).abs().max() <= 1e-4  # the same place in the other windows
        assert steps.max() <= 1.1 * steps.median()
    open_ended = steps_of(unet, motion, x, make_windows(frames, LENGTH, 4), scope)
    assert open_ended[-1] > 1.2 * open_ended.median()
