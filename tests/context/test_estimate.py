"""What a clip is said to take before it begins."""

import pytest

from motion.context.estimate import RunEstimate, UNetNeeds
from motion.context.plan import WindowPlan
from motion.protocols import UNetRoom
from motion.settings import MotionSettings

GIB = 2**30


def plan(**fields):
    return WindowPlan.resolve(MotionSettings(**{"num_frames": 48, **fields}), 16, 32)


def needs(free=100 * GIB):
    """Half-precision SD1.5 at 512 pixels."""
    return UNetNeeds(UNetRoom(2, 64 * 64, free), 320, 2, int(1.6 * GIB), int(0.8 * GIB))


@pytest.mark.parametrize(
    ("fields", "steps", "of_unet", "text"),
    [
        ({}, 20, needs(), "48 frames · 4 windows × 20 steps, 96 UNet rows in each (scope attention) · about 12.2 GiB"),
        (
            {},
            20,
            needs(6 * GIB),
            "48 frames · 4 windows × 20 steps, 128 UNet rows in each (scope unet) · about 5.7 GiB",
        ),
        (
            {},
            20,
            needs(None),
            "48 frames · 4 windows × 20 steps, 96 UNet rows in each (scope attention) · about 12.2 GiB",
        ),
        ({"num_frames": 1}, 1, needs(), "1 frame · 1 window × 1 step, 2 UNet rows in each · about 2.6 GiB"),
        ({}, None, None, "48 frames · 4 windows a step"),
        ({"window_scope": "unet"}, 20, None, "48 frames · 4 windows × 20 steps (scope unet)"),
    ],
)
def test_frames_windows_steps_rows_and_memory(fields, steps, of_unet, text):
    chosen = plan(**fields)
    scope = fields.get("window_scope", "auto")
    assert str(RunEstimate.of(chosen, scope, steps, of_unet)) == text


def test_the_scope_counts_the_modules_weights_as_a_session_does():
    fits = needs().peak_bytes(48) - needs().unet_bytes
    assert needs(fits).scope(48).name == "attention"
    assert needs(fits - 1).scope(48).name == "unet"
