"""Which shape an outline is and how it is turned: how its radius waves once around the middle.

The radius of a triangle has three waves, of a square four, of a star five, of a circle none. Small models paint corners
round and the arms of a star short, which shrinks these waves and leaves their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from motion.training.shapes_drawing import Floats

WAVES: Mapping[str, int] = MappingProxyType({"triangle": 3, "square": 4, "star": 5})
"""Corners of a shape: the waves of its radius. It looks the same after a turn by a circle's share of them."""

LEAST_WAVE: Mapping[str, float] = MappingProxyType({"triangle": 0.045, "square": 0.028, "star": 0.015})
"""Size of these waves, in mean radii, from which an outline is nearer to the shape than to a circle.

Exactly drawn ones have 0.14, 0.07 and 0.145. What the shapes models' autoencoder makes of 95 in 100 has at least 0.083,
0.014 and 0.019, and 0.023, 0.022 and 0.013 of the same waves in a circle.
"""

_RAYS = 64
_STEP = 0.25  # pixels between samples on a ray
_REACH = 3.0  # length of the rays in radii of the circle of the same area; the corners of a star lie at 1.5


@dataclass(frozen=True)
class Outline:
    """What the outlines of a clip look like.

    Attributes:
        shape: one of SHAPES.
        likeness: how strongly the radius waves as that of each of SHAPES, in units of LEAST_WAVE, the mean over frames;
            1 for the circle. The largest one is the shape.
        angle: f, radians clockwise, followed from frame to frame; zeros for a circle.
    """

    shape: str
    likeness: dict[str, float]
    angle: npt.NDArray[np.float64]


def find_outline(matte: Floats, centre: npt.NDArray[np.float64], area: npt.NDArray[np.float64]) -> Outline:
    """The shape of a clip's outlines.

    Args:
        matte: f h w, 0-1.
        centre: f 2, x and y of its middle, pixels; no NaN.
        area: f, pixels.
    """
    radius = _radius(matte, centre, float(np.sqrt(np.maximum(area.max(initial=1.0), 1) / math.pi)))
    waves = np.fft.rfft(radius, axis=1) / np.maximum(radius.sum(axis=1), 1e-6)[:, None]
    found = {shape: float(np.abs(waves[:, count]).mean()) / LEAST_WAVE[shape] for shape, count in WAVES.items()}
    likeness = {"circle": 1.0, **found}
    shape = max(likeness, key=lambda name: likeness[name])
    angle = np.zeros(len(matte))
    if shape in WAVES:
        angle = np.unwrap(-np.angle(waves[:, WAVES[shape]])) / WAVES[shape]
    return Outline(shape, likeness, angle)


def _radius(matte: Floats, centre: npt.NDArray[np.float64], size: float) -> npt.NDArray[np.float64]:
    """How far the shape reaches along each ray, f rays, pixels: the sum of what it covers there, bilinear."""
    along = np.arange(_STEP, _REACH * size, _STEP)
    angle = np.arange(_RAYS) * (math.tau / _RAYS)
    frame = np.arange(len(matte))[:, None, None]
    # One pixel of nothing around the frame stands for all that lies outside.
    padded = np.pad(matte, ((0, 0), (1, 1), (1, 1)))
    x, y = (
        np.clip(centre[:, at, None, None] + along[:, None] * ray + 0.5, 0, matte.shape[2 - at] + 0.999)
        for at, ray in enumerate((np.cos(angle), np.sin(angle)))
    )
    left, top = x.astype(np.int64), y.astype(np.int64)
    part_x, part_y = (x - left).astype(np.float32), (y - top).astype(np.float32)
    upper = padded[frame, top, left] * (1 - part_x) + padded[frame, top, left + 1] * part_x
    lower = padded[frame, top + 1, left] * (1 - part_x) + padded[frame, top + 1, left + 1] * part_x
    return np.asarray((upper * (1 - part_y) + lower * part_y).sum(axis=1, dtype=np.float64) * _STEP)
