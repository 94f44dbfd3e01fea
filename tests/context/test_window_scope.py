"""Which scope "auto" comes to, and the estimate it rests on beside what a UNet really holds."""

import pytest
import torch

from benchmarks.tensor_memory import PeakTensors
from motion.context.window_scope import PEAK_VALUES_PER_CHANNEL, choose_window_scope, peak_bytes
from motion.injection import injected
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from motion.protocols import UNetRoom

CASE = {"num_frames": 64, "model_channels": 320, "num_bytes": 2, "attention_can": True}
NEEDED = peak_bytes(128, 64 * 64, 320, 2)


@pytest.mark.parametrize(
    ("free", "attention_can", "scope", "reason"),
    [
        (None, True, "attention", ""),
        (NEEDED, True, "attention", ""),
        (NEEDED - 1, True, "unet", "would take about 13.1 GiB, and 13.1 GiB are free"),
        (-5, True, "unet", "and 0.0 GiB are free"),
        (NEEDED, False, "unet", "can't run its attention in windows"),
    ],
)
def test_attention_where_it_can_and_memory_suffices(free, attention_can, scope, reason):
    choice = choose_window_scope(UNetRoom(2, 64 * 64, free), **{**CASE, "attention_can": attention_can})
    assert choice.name == scope
    assert reason in choice.reason
    assert bool(choice.reason) == bool(reason)


def test_peak_tensors_counts_storages_while_they_live():
    with PeakTensors() as counted:
        first = torch.zeros(1000)
        second = first + 1
        view = second.view(10, 100)
        second.add_(1)
        del first, second
    assert (counted.bytes, counted.peak_bytes) == (4000, 8000)
    del view
    assert counted.bytes == 0


@pytest.mark.parametrize(("frames", "size"), [(4, 8), (4, 16), (8, 8)])
def test_the_estimate_is_above_what_our_unet_holds_but_not_far(frames, size):
    width = 32
    widths = (width, 2 * width, 4 * width, 4 * width)
    unet = UNetModel(UNetConfig(model_channels=width, context_dim=16)).eval().requires_grad_(False)
    motion = MotionModel(MotionModuleConfig(widths, widths[::-1], None, 32)).eval().requires_grad_(False)
    rows = 2 * frames
    x, t, context = torch.randn(rows, 4, size, size), torch.full((rows,), 7.0), torch.randn(rows, 5, 16)
    with injected(unet, motion, frames), PeakTensors() as counted:
        unet(x, t, context)
    estimate = peak_bytes(rows, size * size, width, 4)
    assert 1.2 <= estimate / counted.peak_bytes <= 1.6
    assert PEAK_VALUES_PER_CHANNEL * counted.peak_bytes / estimate == pytest.approx(28, abs=1)
