"""Which part of the UNet runs in windows, where a request leaves that open: a question of memory."""

from __future__ import annotations

from dataclasses import dataclass

from motion.protocols import UNetRoom

ATTENTION, UNET = "attention", "unet"

PEAK_VALUES_PER_CHANNEL = 42
"""Numbers that a UNet with motion modules holds at its peak, for each row, latent pixel and channel of its first level.

Our UNet holds 28 at any width and size (tests/context/test_window_scope.py counts them), in the feed-forward of the
last level. Hosts cast some of them to float32 and back and don't free each at once, for which half as much is added.
"""
_GIB = 2**30


@dataclass(frozen=True)
class WindowScope:
    """What runs in windows, and why.

    Attributes:
        name: "attention" or "unet".
        reason: for the user, where the choice was ours and costs time; else empty.
    """

    name: str
    reason: str = ""


def choose_window_scope(
    room: UNetRoom, num_frames: int, model_channels: int, num_bytes: int, *, attention_can: bool
) -> WindowScope:
    """What the scope "auto" means for a clip of several windows.

    Args:
        room: what a UNet call is made of, and the memory for it.
        num_frames: frames of the clip.
        model_channels: channels of the UNet's first level.
        num_bytes: size of a number in the UNet's computations.
        attention_can: the motion modules can run their attention in windows, or know the whole clip.
    """
    if not attention_can:
        return WindowScope(UNET, "this motion module can't run its attention in windows")
    needed = peak_bytes(room.rows_per_frame * num_frames, room.latent_pixels, model_channels, num_bytes)
    if room.free_bytes is None or needed <= room.free_bytes:
        return WindowScope(ATTENTION)
    free = max(0, room.free_bytes)
    return WindowScope(
        UNET, f"all frames at once would take about {needed / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB are free"
    )


def peak_bytes(num_rows: int, latent_pixels: int, model_channels: int, num_bytes: int) -> int:
    """Memory for the feature maps of a UNet call, weights apart: an estimate on the safe side."""
    return PEAK_VALUES_PER_CHANNEL * num_rows * latent_pixels * model_channels * num_bytes
