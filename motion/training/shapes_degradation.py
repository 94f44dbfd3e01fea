"""Bad footage of the shapes world, as web videos are: blur, block artefacts and a watermark, and a measure of the mark.

A domain adapter learns these, so that a motion module trained beside it need not (AnimateDiff, section 4.1).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from motion.training.shapes_drawing import SIZE, Floats, exact

BLOCK = 8
"""Side of the blocks, pixels, as in JPEG."""

MARK_WIDTH, MARK_HEIGHT, MARK_MARGIN = 26, 18, 2
MARK_OPACITY = 0.55
_STRIPE_PERIOD = 12  # along x and along y: three light stripes at 45 degrees, which no shape of the world resembles

_WINDOW = (
    slice(SIZE - MARK_MARGIN - MARK_HEIGHT, SIZE - MARK_MARGIN),
    slice(SIZE - MARK_MARGIN - MARK_WIDTH, SIZE - MARK_MARGIN),
)


def _stripes() -> Floats:
    """The mark, h w, 0-1: diagonal stripes with edges of one and a half pixels."""
    x, y = np.arange(MARK_WIDTH, dtype=np.float32), np.arange(MARK_HEIGHT, dtype=np.float32)[:, None]
    from_middle = np.abs((x + y) % _STRIPE_PERIOD - np.float32(_STRIPE_PERIOD / 2))
    return np.asarray(
        np.clip((np.float32(_STRIPE_PERIOD / 4) - from_middle) * np.float32(0.75) + np.float32(0.5), 0, 1)
    )


def degraded(clip: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """`clip`, f h w c of SIZE pixels, blurred, in blocks and watermarked; how much of the first two is chance.

    One draw holds for all frames. The mark is always the same: white stripes in the lower right corner.
    """
    sigma, blocks = rng.uniform(0.6, 1.2), np.float32(rng.uniform(0.3, 0.6))
    frames = blurred(clip.astype(np.float32), sigma)
    tiles = frames.reshape(len(frames), SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK, 3)
    tiles = tiles + blocks * (tiles.mean(axis=(2, 4), keepdims=True) - tiles)
    return watermarked((tiles.reshape(frames.shape) + np.float32(0.5)).astype(np.uint8))


def watermarked(clip: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """`clip`, f h w c of SIZE pixels, with the mark only."""
    frames = clip.astype(np.float32)
    part = frames[:, _WINDOW[0], _WINDOW[1]]
    part += np.float32(MARK_OPACITY) * _stripes()[..., None] * (np.float32(255) - part)
    return (frames + np.float32(0.5)).astype(np.uint8)


def blurred(frames: Floats, sigma: float) -> Floats:
    """Gaussian blur of f h w c (or f h w) along h and w, edges mirrored."""
    radius = max(1, math.ceil(3 * sigma))
    taps = exact(np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2))
    taps = taps / taps.sum()
    for axis in (1, 2):
        width = [(radius, radius) if at == axis else (0, 0) for at in range(frames.ndim)]
        padded, length = np.pad(frames, width, mode="symmetric"), frames.shape[axis]
        index: list[slice] = [slice(None)] * frames.ndim
        frames = np.zeros_like(frames)
        for offset, tap in enumerate(taps):
            index[axis] = slice(offset, offset + length)
            frames += tap * padded[tuple(index)]
    return frames


def watermark_score(frames: npt.NDArray[np.uint8]) -> float:
    """How strongly the mark shows in frames f h w c: about 1 with it, 0 without, in between where it is faint.

    The part of the picture that looks like the stripes, after slow changes over the window are taken away, against
    what the mark would add there; the median over frames and colours, so that an edge of a shape counts little.
    """
    window = frames[:, _WINDOW[0], _WINDOW[1]].astype(np.float64)
    ground = np.percentile(window, 30, axis=(1, 2))  # f c
    pattern = _stripes().astype(np.float64).ravel()
    y, x = (axis.ravel() / 10 for axis in np.mgrid[:MARK_HEIGHT, :MARK_WIDTH])
    slow = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], axis=1)
    pattern = pattern - slow @ np.linalg.lstsq(slow, pattern, rcond=None)[0]
    found = np.einsum("fnc,n->fc", window.reshape(len(window), -1, 3), pattern) / (pattern @ pattern)
    return float(np.median(found / (MARK_OPACITY * np.maximum(255 - ground, 40))))
