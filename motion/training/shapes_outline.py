"""Which shape an outline is and how it is turned: comparison with drawn templates of the same area."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from motion.training.shapes_drawing import Floats, signed_distance
from motion.training.shapes_segmentation import smoothed
from motion.training.shapes_words import SHAPES

GRID = 28
"""Side of the pictures that are compared, samples."""

REACH = 1.8
"""Half their side in radii of the circle of the same area; the corners of a star lie at 1.5."""

SYMMETRY = {"circle": 0.0, "square": math.pi / 2, "triangle": math.tau / 3, "star": math.tau / 5}
"""The angle after which a shape looks the same, radians; 0 for any."""

_ANGLE_STEP = math.radians(4)
_SOFTNESS = (0.6, 1.6, 2.8)  # sigma of a template's blur, samples


@dataclass(frozen=True)
class Outline:
    """What the outlines of a clip look like.

    Attributes:
        shape: one of SHAPES.
        likeness: mean correlation with the best template of each of SHAPES, -1 to 1.
        angle: f, radians clockwise, followed from frame to frame; zeros for a circle.
    """

    shape: str
    likeness: dict[str, float]
    angle: npt.NDArray[np.float64]


@functools.lru_cache(maxsize=1)
def _templates() -> tuple[tuple[str, Floats, npt.NDArray[np.float64]], ...]:
    """Per shape: pictures of unit length about their mean, n GRID², and the angle of each, n."""
    axis = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * REACH
    fine = ((np.arange(4 * GRID) + 0.5) / (4 * GRID) * 2 - 1) * REACH
    found = []
    for shape in SHAPES:
        u, v = (part.astype(np.float32) for part in np.meshgrid(fine, fine))
        inside = signed_distance(shape, u, v, np.ones(1, np.float32)) < 0
        size = 1 / math.sqrt(inside.mean() * (2 * REACH) ** 2 / math.pi)
        angles = np.arange(0, SYMMETRY[shape], _ANGLE_STEP) if SYMMETRY[shape] else np.zeros(1)
        pictures = []
        for angle in angles:
            x, y = np.meshgrid(axis, axis)
            u = np.asarray(math.cos(angle) * x + math.sin(angle) * y, np.float32)
            v = np.asarray(math.cos(angle) * y - math.sin(angle) * x, np.float32)
            distance = signed_distance(shape, u, v, np.full(1, size, np.float32))
            pictures.append(np.clip(0.5 - distance * GRID / (2 * REACH), 0, 1))
        soft = np.concatenate([smoothed(np.asarray(pictures, np.float32), sigma) for sigma in _SOFTNESS])
        found.append((shape, _unit(soft.reshape(len(soft), -1)), np.tile(angles, len(_SOFTNESS))))
    return tuple(found)


def _unit(pictures: Floats) -> Floats:
    centred = pictures - pictures.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6), np.float32)


def _samples(matte: Floats, centre: npt.NDArray[np.float64], area: npt.NDArray[np.float64]) -> Floats:
    """Each frame's outline at one size, bilinear, f GRID²."""
    axis = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * REACH
    reach = np.sqrt(np.maximum(area, 1) / np.pi)[:, None] * axis  # f GRID
    frame = np.arange(len(matte))[:, None, None]
    # One pixel of nothing around the frame stands for all that lies outside.
    padded = np.pad(matte, ((0, 0), (1, 1), (1, 1)))
    place = [np.clip(centre[:, at, None] + reach + 0.5, 0, matte.shape[2 - at] + 0.999) for at in (0, 1)]
    left, top = (axis.astype(np.int64) for axis in place)
    part_x, part_y = (place[0] - left)[:, None, :], (place[1] - top)[:, :, None]
    left, top = left[:, None, :], top[:, :, None]
    upper = padded[frame, top, left] * (1 - part_x) + padded[frame, top, left + 1] * part_x
    lower = padded[frame, top + 1, left] * (1 - part_x) + padded[frame, top + 1, left + 1] * part_x
    return np.asarray((upper * (1 - part_y) + lower * part_y).reshape(len(matte), -1), np.float32)


def find_outline(matte: Floats, centre: npt.NDArray[np.float64], area: npt.NDArray[np.float64]) -> Outline:
    """The shape of a clip's outlines.

    Args:
        matte: f h w, 0-1.
        centre: f 2, x and y of its middle, pixels; no NaN.
        area: f, pixels.
    """
    samples = _unit(_samples(matte, centre, area))
    likeness, turned = {}, {}
    for shape, pictures, angles in _templates():
        fits = samples @ pictures.T
        likeness[shape] = float(fits.max(axis=1).mean())
        turned[shape] = angles[fits.argmax(axis=1)]
    shape = max(likeness, key=lambda name: likeness[name])
    period = SYMMETRY[shape]
    angle = np.unwrap(turned[shape], period=period) if period else np.zeros(len(matte))
    return Outline(shape, likeness, angle)
