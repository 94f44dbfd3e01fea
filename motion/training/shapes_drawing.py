"""Pixels of the shapes world: anti-aliased shapes from signed distances, and a background that shows the camera.

The same seed must give the same bytes on every machine. So sines, cosines and exponentials, whose last bit differs
between machines, are taken in float64 and rounded to a grid of 2^-16; all else is +, -, x, min and max in float32,
which IEEE 754 fixes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIZE = 64
"""Width and height of a frame, pixels."""

CENTRE = SIZE / 2

PERIOD = 32.0
"""Period of the background's pattern along x and y, world pixels. Its lighter dots lie 16 px apart in x and y, in
quincunx; at 4 latent pixels a period an autoencoder of 8x8 latents can carry it."""

SHAPE_RGB: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (225, 40, 40),
        "green": (50, 190, 70),
        "blue": (60, 100, 245),
        "yellow": (245, 215, 40),
        "purple": (175, 60, 215),
        "white": (240, 240, 240),
    }
)

BACKGROUND_RGB: Mapping[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = MappingProxyType(
    {  # the darkest point between the dots, and the middle of a dot
        "black": ((8, 8, 8), (52, 52, 52)),
        "grey": ((96, 96, 96), (144, 144, 144)),
        "blue": ((10, 16, 78), (44, 56, 128)),
        "brown": ((66, 38, 14), (112, 76, 46)),
    }
)

EXTENT: Mapping[str, float] = MappingProxyType({"circle": 1.0, "square": 1.2, "triangle": 1.35, "star": 1.35})
"""Distance of the farthest point of a shape from its centre, in units of its size."""

STAR_INNER = 0.48
"""Radius of a star's inner corners, in units of the outer ones."""


def exact(value: npt.NDArray[np.float64] | float) -> Floats:
    """`value` on a grid of 2^-16, as float32: away from rounding's edge the same on every machine."""
    return np.asarray(np.round(np.asarray(value, np.float64) * 65536) / 65536, np.float32)


def _mirrored(u: Floats, v: Floats, degrees: float) -> tuple[Floats, Floats]:
    """What lies beyond the line through the centre at `degrees` from up, mirrored at it."""
    nx, ny = (float(exact(f(math.radians(degrees)))) for f in (math.cos, math.sin))
    beyond = np.float32(2) * np.maximum(u * np.float32(nx) + v * np.float32(ny), np.float32(0))
    return u - beyond * np.float32(nx), v - beyond * np.float32(ny)


def _star_distance(u: Floats, v: Floats, radius: Floats) -> Floats:
    """Distance to the edge from a tip to an inner corner, all ten parts folded onto one by mirrors."""
    for _ in range(2):
        u, v = _mirrored(np.abs(u), v, 36)
    u = np.abs(u)
    inner_x, inner_y = STAR_INNER * math.sin(math.radians(36)), STAR_INNER * math.cos(math.radians(36))
    length = math.hypot(1 - inner_y, inner_x)
    nx, ny = (float(exact(value / length)) for value in (1 - inner_y, inner_x))
    # The tip lies straight up, at v = -radius.
    return u * np.float32(nx) - (v + radius) * np.float32(ny)


def signed_distance(shape: str, u: Floats, v: Floats, size: Floats) -> Floats:
    """Pixels from the edge of a shape, negative inside; exact beside an edge, which is all that smoothing needs.

    Args:
        shape: "circle", "square", "triangle" or "star".
        u: pixels right of the centre, in the axes of the shape.
        v: pixels below it.
        size: the shape's size, pixels; the corners lie at EXTENT times that.
    """
    if shape == "circle":
        return np.asarray(np.sqrt(u * u + v * v) - size)
    radius = size * np.float32(EXTENT[shape])
    if shape == "square":
        return np.asarray(np.maximum(np.abs(u), np.abs(v)) - radius * exact(math.sqrt(0.5)))
    if shape == "triangle":
        slanted = np.abs(u) * exact(math.sqrt(0.75)) - v * np.float32(0.5)
        return np.asarray(np.maximum(slanted, v) - radius * np.float32(0.5))
    return _star_distance(u, v, radius)


def _span(centre: Floats, reach: Floats) -> slice:
    """The pixels of one axis that a shape touches in any frame."""
    low, high = float((centre - reach).min()), float((centre + reach).max())
    return slice(min(max(math.floor(low), 0), SIZE), min(max(math.ceil(high), 0), SIZE))


def paint(frames: Floats, shape: str, rgb: tuple[int, int, int], centre: Floats, size: Floats, angle: Floats) -> None:
    """Draw a shape over `frames`, each pixel by the share of it that is covered.

    Args:
        frames: c f h w, RGB 0-255; changed in place.
        shape: "circle", "square", "triangle" or "star".
        rgb: the shape's colour.
        centre: f 2, x and y in pixels from the upper left corner of the frame.
        size: f, pixels.
        angle: f, radians clockwise on the screen.
    """
    reach = size * np.float32(EXTENT[shape]) + np.float32(1)
    columns, rows = _span(centre[:, 0], reach), _span(centre[:, 1], reach)
    pixels = np.arange(SIZE, dtype=np.float32) + np.float32(0.5)
    x = (pixels[columns] - centre[:, 0, None])[:, None, :]
    y = (pixels[rows] - centre[:, 1, None])[:, :, None]
    cos, sin = (exact(f(angle.astype(np.float64)))[:, None, None] for f in (np.cos, np.sin))
    distance = signed_distance(shape, cos * x + sin * y, cos * y - sin * x, size[:, None, None])
    covered = np.minimum(np.maximum(np.float32(0.5) - distance, np.float32(0)), np.float32(1))
    for channel, value in zip(frames, rgb, strict=True):
        part = channel[:, rows, columns]
        part += covered * (np.float32(value) - part)


def background(colour: str, camera: Floats, zoom: Floats) -> Floats:
    """The background in RGB, c f h w, 0-255.

    Args:
        colour: a key of BACKGROUND_RGB.
        camera: f 2, the point of the world in the middle of the frame, x and y in world pixels.
        zoom: f, screen pixels per world pixel.
    """
    pixels = np.arange(SIZE) + 0.5 - CENTRE
    phase = 2 * math.pi / PERIOD
    wave_x, wave_y = (
        exact(np.cos(phase * (pixels / zoom[:, None].astype(np.float64) + camera[:, axis, None]))) for axis in (0, 1)
    )
    dots = np.float32(0.5) + np.float32(0.5) * wave_y[:, :, None] * wave_x[:, None, :]
    frames = np.empty((3, *dots.shape), np.float32)
    for channel, dark, light in zip(frames, *BACKGROUND_RGB[colour], strict=True):
        np.multiply(dots, np.float32(light - dark), out=channel)
        channel += np.float32(dark)
    return frames
