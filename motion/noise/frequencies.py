"""Low and high frequencies of a clip's latents, over time and space at once."""

from __future__ import annotations

import torch
from torch import Tensor

_AXES = (-4, -2, -1)  # f, h, w of f c h w


def low_pass(kind: str, shape: tuple[int, int, int], *, d_s: float = 0.25, d_t: float = 0.25, order: int = 4) -> Tensor:
    """How much of each frequency a filter keeps, 0 to 1: float32 [f, h, w], frequency 0 in the middle (fftshift).

    The shapes are those of the original program. Ours differ on purpose in two places: along an axis of odd length the
    middle is frequency 0, not the point half a frequency beside it; and a box keeps frequency 0 however narrow it is.

    Args:
        kind: "butterworth" 1 / (1 + (d² / d_s²)^order), "gaussian" exp(-d² / 2 d_s²), "ideal" d² ≤ 2 d_s, or "box", a
            cuboid of the d_s, d_s and d_t nearest frequencies of each half axis (of d_s: of the height's), without its
            upper faces, which real latents see as faces of half weight on both sides. d² is the squared distance from
            frequency 0, in units of half an axis, and of half an axis · d_t / d_s over time.
        shape: frames, height and width of the latents.
        d_s: where the filter stops along height and width, 0 to 1. At 0 it keeps nothing.
        d_t: where it stops along the frames, 0 to 1. At 0 it keeps nothing.
        order: steepness of "butterworth".

    Raises:
        ValueError: an unknown kind.
    """
    if d_s == 0 or d_t == 0:
        return torch.zeros(shape)
    if kind == "box":
        return _box(shape, d_s, d_t)
    f, h, w = (torch.fft.fftshift(torch.fft.fftfreq(size, d=0.5, dtype=torch.float64)) for size in shape)
    squared = (f * d_s / d_t)[:, None, None] ** 2 + h[:, None] ** 2 + w**2
    if kind == "butterworth":
        mask: Tensor = 1 / (1 + (squared / d_s**2) ** order)
    elif kind == "gaussian":
        mask = torch.exp(-squared / (2 * d_s**2))
    elif kind == "ideal":
        mask = squared <= 2 * d_s
    else:
        raise ValueError(f"The filter must be butterworth, gaussian, ideal or box, got {kind!r}.")
    return mask.float()


def _box(shape: tuple[int, int, int], d_s: float, d_t: float) -> Tensor:
    frames, height, _ = shape
    reach = (max(1, round(frames // 2 * d_t)), *2 * (max(1, round(height // 2 * d_s)),))
    mask = torch.zeros(shape)
    mask[tuple(slice(max(0, size // 2 - r), size // 2 + r) for size, r in zip(shape, reach, strict=True))] = 1
    return mask


def mixed(low: Tensor, high: Tensor, mask: Tensor) -> Tensor:
    """The frequencies of `low` that `mask` keeps, and those of `high` that it doesn't.

    Of two independent unit noises, M² + (1 - M)² of each frequency's variance is left. Over all, a "butterworth" of
    0.25 takes 1 percent and a "gaussian" 4; one of 0.5 takes a quarter. The paper has it so, and so it is here.

    Args:
        low: f c h w, real.
        high: f c h w, real.
        mask: of `low_pass`, [f, h, w].
    """
    weights = torch.fft.ifftshift(mask)[:, None]
    # F⁻¹(M·F(low) + (1 - M)·F(high)), written so that nothing is lost where both are the same.
    kept: Tensor = torch.fft.ifftn(torch.fft.fftn(low - high, dim=_AXES) * weights, dim=_AXES).real
    return high + kept
