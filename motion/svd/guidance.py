"""Guidance that differs from frame to frame (sgm/modules/diffusionmodules/guiders.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from motion.errors import SettingsError
from motion.svd.choices import GUIDANCE_SHAPES


def guidance_scales(shape: str, num_frames: int, min_scale: float, max_scale: float) -> Tensor:
    """The guidance scale of each frame.

    Args:
        shape: one of `GUIDANCE_SHAPES`.
        num_frames: frames of the clip; a single one gets `min_scale`, or `max_scale` where all do.
        min_scale: scale of the first frame.
        max_scale: scale of the last frame, or of the middle one in a triangle.

    Returns:
        `f`, float32, on the CPU.

    Raises:
        SettingsError: unknown shape, or no frames.
    """
    if num_frames < 1:
        raise SettingsError(f"`num_frames` must be at least 1, got {num_frames}. Raise it.")
    if shape == "linear":
        return torch.linspace(min_scale, max_scale, num_frames)
    if shape == "triangle":
        position = torch.linspace(0, 1, num_frames)
        return min_scale + (max_scale - min_scale) * (1 - (2 * position - 1).abs())
    if shape == "constant":
        return torch.full((num_frames,), float(max_scale))
    raise SettingsError(f"`guidance` must be one of {', '.join(GUIDANCE_SHAPES)}, got {shape!r}. Choose one of these.")


def guide(uncond: Tensor, cond: Tensor, scales: Tensor) -> Tensor:
    """Move each frame's prediction away from the unconditional one: u + s·(c - u).

    Args:
        uncond: `(b f) …`.
        cond: of the same shape.
        scales: `f`.
    """
    num_clips = len(cond) // len(scales)
    factors = scales.to(cond).repeat(num_clips).reshape(-1, *[1] * (cond.dim() - 1))  # f -> (b f) 1 …
    return uncond + factors * (cond - uncond)
