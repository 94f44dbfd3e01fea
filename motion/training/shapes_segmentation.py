"""Which colours a clip of the shapes world shows, and where each shape is: plain comparison of colours.

Made for the soft pictures of small models: colours may be off, edges blurred, and stray spots are left out.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from motion.training.shapes_drawing import BACKGROUND_RGB, SHAPE_RGB, SIZE, Floats

FAR = 45.0
"""Distance in RGB from the background's colours at which a pixel begins to count as part of a shape."""

PALETTE = np.asarray(list(SHAPE_RGB.values()), np.float32)

SMALLEST_SHARE = 0.3
"""A second shape has at least this part of the pixels of the first."""

SMALLEST_AREA = 16.0
"""Pixels of the smallest shape that is taken for one."""


@dataclass(frozen=True)
class Ground:
    """The background of a clip.

    Attributes:
        colour: a key of BACKGROUND_RGB.
        shade: f h w, where each pixel lies between the dark (0) and light (1) end of the background's colours.
        distance: f h w, how far it is from these colours in RGB.
    """

    colour: str
    shade: Floats
    distance: Floats

    @property
    def middle(self) -> Floats:
        """The colour between the two ends."""
        return np.asarray(np.mean(BACKGROUND_RGB[self.colour], axis=0), np.float32)


@dataclass(frozen=True)
class Spot:
    """One patch of colour in all frames.

    Attributes:
        matte: f h w, 0-1, how much of each pixel it covers, other shapes and stray spots left out.
        centre: f 2, x and y in pixels from the upper left corner; NaN in frames without the shape.
        area: f, pixels.
    """

    matte: Floats
    centre: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blob(Spot):
    """One shape in all frames.

    Attributes:
        colour: a key of SHAPE_RGB.
    """

    colour: str


@functools.lru_cache(maxsize=16)
def _blur_matrix(length: int, sigma: float) -> Floats:
    """Gaussian blur of a line of pixels, nothing beyond its ends counted, as a matrix to multiply from the right."""
    apart = np.arange(length)[:, None] - np.arange(length)
    taps = np.exp(-0.5 * (apart / sigma) ** 2)
    return np.asarray(taps / taps.sum(axis=0), np.float32)


def smoothed(pictures: Floats, sigma: float) -> Floats:
    """Gaussian blur of n h w along h and w; fast, and to rounding only the same on all machines."""
    rows, columns = (_blur_matrix(length, sigma) for length in pictures.shape[1:])
    return np.asarray(np.matmul(rows.T, pictures @ columns), np.float32)


def find_ground(frames: Floats) -> Ground:
    """The background whose colours come nearest to most pixels of `frames`, c f h w, 0-255."""
    few = frames[:, ::2, ::2, ::2]
    misfit = {colour: float(np.minimum(_against(few, colour).distance, 2 * FAR).mean()) for colour in BACKGROUND_RGB}
    return _against(frames, min(misfit, key=lambda colour: misfit[colour]))


def _against(frames: Floats, colour: str) -> Ground:
    dark, light = np.asarray(BACKGROUND_RGB[colour], np.float32)
    axis = light - dark
    length = np.float32(axis @ axis)
    red, green, blue = (channel - value for channel, value in zip(frames, dark, strict=True))
    shade = (red * axis[0] + green * axis[1] + blue * axis[2]) / length
    nearest = np.clip(shade, -0.2, 1.2)
    squared = red * red + green * green + blue * blue - length * nearest * (2 * shade - nearest)
    return Ground(colour, shade, np.sqrt(np.maximum(squared, 0)))


def find_blobs(frames: Floats, ground: Ground) -> tuple[Blob, ...]:
    """At most two shapes of different colours in `frames`, c f h w, 0-255; the larger one first."""
    weight = np.clip(ground.distance / np.float32(FAR) - 1, 0, 2)
    nearest = np.stack([sum(((c - v) * (c - v) for c, v in zip(frames, rgb, strict=True))) for rgb in PALETTE]).argmin(
        axis=0
    )
    blobs: list[Blob] = []
    free = np.ones_like(weight)
    most = 0.0
    while len(blobs) < 2:
        votes = np.bincount(nearest.ravel(), weights=(weight * free).ravel(), minlength=len(PALETTE)) / weight.shape[0]
        if votes.max() < max(SMALLEST_AREA / 2, SMALLEST_SHARE * most):
            break
        most = votes.max()
        blob = _coloured_blob(frames, ground, nearest == votes.argmax(), weight, free)
        if np.median(blob.area) < SMALLEST_AREA:
            break
        if all(blob.colour != other.colour for other in blobs):
            blobs.append(blob)
        # Soft edges of a shape have colours of their own; they are no second shape.
        free = free * (smoothed(blob.matte, 1.5) < 0.03)
    return tuple(sorted(blobs, key=lambda blob: -float(np.median(blob.area))))


def _coloured_blob(frames: Floats, ground: Ground, chosen: npt.NDArray[np.bool_], weight: Floats, free: Floats) -> Blob:
    """The shape that most of the chosen pixels belong to, with the colour of its inside."""
    rough = _spot(chosen * free * np.minimum(weight, 1))
    around = (smoothed(rough.matte, 1.0) > 0.1) * free * ground.distance
    inside = around >= np.percentile(around[around > FAR], 60)
    rgb = np.median(frames[:, inside], axis=1)
    name = tuple(SHAPE_RGB)[int(np.square(PALETTE - rgb).sum(axis=1).argmin())]
    spot = _spot(_matte(frames, ground.middle, rgb) * free)
    return Blob(spot.matte, spot.centre, spot.area, name)


def _matte(frames: Floats, ground: Floats, rgb: Floats) -> Floats:
    """How far each pixel is on the way from the background's colour to the shape's; other colours count as none."""
    axis = rgb - ground
    length = np.float32(max(float(axis @ axis), 1.0))
    red, green, blue = (channel - value for channel, value in zip(frames, ground, strict=True))
    along = (red * axis[0] + green * axis[1] + blue * axis[2]) / length
    beside = np.sqrt(np.maximum((red * red + green * green + blue * blue) / length - along * along, 0))
    soft = np.clip((along - np.float32(0.2)) / np.float32(0.6), 0, 1)
    return np.asarray(soft * np.clip(np.float32(2.5) - 4 * beside, 0, 1), np.float32)


def _spot(matte: Floats) -> Spot:
    """The largest spot of each frame of `matte`: the mean place of what lies near the mean, begun where most lies."""
    pixels = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    peak = smoothed(matte, 4.0).reshape(len(matte), -1).argmax(axis=1)
    centre = np.stack([peak % SIZE, peak // SIZE], axis=1) + 0.5
    radius = np.full(len(matte), 16.0)
    near = matte
    for _ in range(5):
        away = np.square(pixels - centre[:, 0, None])[:, None, :] + np.square(pixels - centre[:, 1, None])[:, :, None]
        near = matte * (away < np.square(radius)[:, None, None])
        area = near.sum(axis=(1, 2), dtype=np.float64)
        safe = np.maximum(area, 1e-6)
        found = np.stack([near.sum(axis=1) @ pixels, near.sum(axis=2) @ pixels], axis=1) / safe[:, None]
        centre = np.where(area[:, None] > 1, found, centre)
        radius = np.clip(1.75 * np.sqrt(area / np.pi) + 2, 6, 30)
    return Spot(near, np.where(area[:, None] >= SMALLEST_AREA, centre, np.nan), area)
