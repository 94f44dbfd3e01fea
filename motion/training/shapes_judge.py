"""The judge of the shapes world: reads back from pictures what they show, by plain image analysis, without a network.

Speeds are in pixels a frame of SIZE pixels, right and down positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from motion.errors import MotionError
from motion.training.shapes_camera import CameraPath, find_camera
from motion.training.shapes_drawing import SIZE
from motion.training.shapes_outline import find_outline
from motion.training.shapes_segmentation import FAR, SMALLEST_AREA, Blob, find_blobs, find_ground
from motion.training.shapes_words import AskedShape, parse_caption

LEAST_TRAVEL = 5.0
"""Pixels that a shape or a pan goes in a clip before it counts as moving; the world's slowest go 14."""

LEAST_GROWTH = 0.2
"""Logarithm of the factor by which a shape or a zoom grows in a clip before it counts; the world's least is 0.5."""

LEAST_TURN = math.radians(20)
"""Angle that a shape turns in a clip before it counts; the world's slowest turn 60 degrees in 16 frames."""

UNSTEADY = 0.3
"""A shape moves straight when its places lie beside the straight line by less than this part of the way (rms)."""


@dataclass(frozen=True)
class SeenShape:
    """A shape as it was read back from a clip.

    Attributes:
        colour: one of COLOURS.
        shape: one of SHAPES.
        likeness: how strongly it looks like each of SHAPES; 1 for the circle, and the largest one is the shape.
        centre: f 2, its middle, x and y in pixels from the upper left corner; NaN in frames where it is missing.
        area: f, pixels.
        velocity: x and y over the screen, the slope of a straight line through the places.
        own_velocity: the same against the background, what the camera does taken away.
        unsteadiness: root mean square distance from that line on the screen, pixels.
        growth: logarithm of the size's factor a frame, zoom included.
        own_growth: the same without the zoom.
        turning: radians a frame, clockwise; 0 for a circle.
        jump: mean over frames of how far a step differs from the mean step, pixels.
        motion: one of MOTIONS, what it does against the background.
        direction: one of DIRECTIONS where it moves straight over the screen, else "".
    """

    colour: str
    shape: str
    likeness: dict[str, float]
    centre: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]
    velocity: tuple[float, float]
    own_velocity: tuple[float, float]
    unsteadiness: float
    growth: float
    own_growth: float
    turning: float
    jump: float
    motion: str
    direction: str


@dataclass(frozen=True)
class SeenClip:
    """What a clip shows.

    Attributes:
        shapes: none, one or two of different colours, the larger one first.
        background: one of BACKGROUNDS.
        camera: one of CAMERAS.
        camera_velocity: x and y of the camera, the mean over the clip; a pan to the left is negative in x.
        camera_zoom: logarithm of the zoom's factor a frame, the mean; positive for zooming in.
        flicker: mean size of the second difference over frames of all pixels, 0-255; what moves evenly has little.
    """

    shapes: tuple[SeenShape, ...]
    background: str
    camera: str
    camera_velocity: tuple[float, float]
    camera_zoom: float
    flicker: float


@dataclass(frozen=True)
class SeenStill:
    """What one picture shows; "" and NaN where there is no shape.

    Attributes:
        colour: of the largest shape, one of COLOURS.
        shape: one of SHAPES.
        background: one of BACKGROUNDS.
        centre: x and y in pixels from the upper left corner.
        area: pixels.
    """

    colour: str
    shape: str
    background: str
    centre: tuple[float, float]
    area: float


@dataclass(frozen=True)
class Scores:
    """Whether a clip shows what its caption asks for; None for what the caption doesn't ask.

    Attributes:
        colour: the largest shape has the colour of the caption's; with two in the caption, both colours are there.
        shape: the same for shapes.
        background: its colour.
        direction: the main shape moves over the screen in the caption's direction; against the background where the
            caption asks for a camera that moves.
        motion: the main shape does what the caption says, doing nothing included.
        camera: the camera does what the caption says, resting included.
        seen: all that was measured.
    """

    colour: bool
    shape: bool
    background: bool | None
    direction: bool | None
    motion: bool
    camera: bool
    seen: SeenClip


def judge_still(picture: npt.NDArray[np.uint8]) -> SeenStill:
    """What a picture, h w c in RGB, shows.

    Raises:
        MotionError: another shape or dtype.
    """
    frames = _checked(np.asarray(picture)[None])
    ground = find_ground(frames)
    blobs = find_blobs(frames, ground)
    if not blobs:
        return SeenStill("", "", ground.colour, (math.nan, math.nan), math.nan)
    blob = blobs[0]
    outline = find_outline(blob.matte, blob.centre, blob.area)
    centre = (float(blob.centre[0, 0]), float(blob.centre[0, 1]))
    return SeenStill(blob.colour, outline.shape, ground.colour, centre, float(blob.area[0]))


def judge_clip(clip: npt.NDArray[np.uint8]) -> SeenClip:
    """What a clip, f h w c in RGB with f >= 3, shows.

    Raises:
        MotionError: another shape or dtype.
    """
    frames = _checked(np.asarray(clip), at_least=3)
    ground = find_ground(frames)
    blobs = find_blobs(frames, ground)
    path = find_camera(ground.shade, np.asarray(ground.distance > FAR, np.float32))
    velocity, zoom = -path.shift.mean(axis=0), float(path.zoom.mean())
    return SeenClip(
        tuple(_seen(blob, path) for blob in blobs),
        ground.colour,
        _camera_name(path),
        (float(velocity[0]), float(velocity[1])),
        zoom,
        float(np.abs(np.diff(frames, n=2, axis=1)).mean()),
    )


def score_text_clip(clip: npt.NDArray[np.uint8], caption: str) -> Scores:
    """Whether a clip, f h w c in RGB, shows what `caption` asks for.

    Raises:
        MotionError: not a caption of the shapes world, or not a clip.
    """
    return score_seen(judge_clip(clip), caption)


def score_seen(seen: SeenClip, caption: str) -> Scores:
    """Whether what was seen in a clip is what `caption` asks for.

    Raises:
        MotionError: not a caption of the shapes world.
    """
    asked = parse_caption(caption)
    shapes = seen.shapes[: len(asked.shapes)]
    main = _main(asked.main, shapes)
    direction = main.direction if main is not None else ""
    if asked.camera and main is not None:
        direction = main.motion.removeprefix("moving ") if main.motion.startswith("moving") else ""
    return Scores(
        colour=sorted(shape.colour for shape in shapes) == sorted(shape.colour for shape in asked.shapes),
        shape=sorted(shape.shape for shape in shapes) == sorted(shape.shape for shape in asked.shapes),
        background=seen.background == asked.background if asked.background else None,
        direction=direction == asked.main.direction if asked.main.direction else None,
        motion=main is not None and main.motion == asked.main.motion,
        camera=seen.camera == asked.camera,
        seen=seen,
    )


def _checked(frames: npt.NDArray[np.uint8], at_least: int = 1) -> npt.NDArray[np.float32]:
    if frames.dtype != np.uint8 or frames.shape[1:] != (SIZE, SIZE, 3) or len(frames) < at_least:
        raise MotionError(
            f"The judge needs at least {at_least} RGB pictures of {SIZE}x{SIZE} pixels, uint8 with the colours last; "
            f"got {frames.dtype} of shape {frames.shape}. Scale or convert them first."
        )
    return np.ascontiguousarray(np.moveaxis(frames, -1, 0), np.float32)  # f h w c -> c f h w


def _main(asked: AskedShape, shapes: tuple[SeenShape, ...]) -> SeenShape | None:
    """The shape that a caption's first shape means: of its colour, else of its kind, else the largest."""
    ranked = sorted(shapes, key=lambda shape: (shape.colour != asked.colour, shape.shape != asked.shape))
    return ranked[0] if ranked else None


def _seen(blob: Blob, path: CameraPath) -> SeenShape:
    present = ~np.isnan(blob.centre[:, 0])
    frame = np.flatnonzero(present)
    outline = find_outline(blob.matte[present], blob.centre[present], blob.area[present])
    # Where the shape would be had the camera rested.
    filled = np.stack([np.interp(np.arange(len(present)), frame, blob.centre[present, at]) for at in (0, 1)], axis=1)
    carried = np.concatenate([np.zeros((1, 2)), np.cumsum(path.carried(filled[:-1]), axis=0)])
    zoom = float(path.zoom.mean())
    velocity, beside = _line(frame, blob.centre[present])
    own_velocity, own_beside = _line(frame, (filled - carried)[present])
    growth = float(_line(frame, 0.5 * np.log(np.maximum(blob.area[present], SMALLEST_AREA))[:, None])[0][0])
    turning = float(_line(frame, outline.angle[:, None])[0][0])
    steps = np.diff(filled, axis=0)
    enough = len(frame) >= 0.8 * len(present)
    own = _straight(own_velocity, own_beside, len(present)) if enough else ""
    return SeenShape(
        colour=blob.colour,
        shape=outline.shape,
        likeness=outline.likeness,
        centre=blob.centre,
        area=blob.area,
        velocity=(float(velocity[0]), float(velocity[1])),
        own_velocity=(float(own_velocity[0]), float(own_velocity[1])),
        unsteadiness=beside,
        growth=growth,
        own_growth=growth - zoom,
        turning=turning,
        jump=float(np.linalg.norm(steps - steps.mean(axis=0), axis=1).mean()),
        motion=f"moving {own}" if own else _other_motion(filled - carried, growth - zoom, turning),
        direction=_straight(velocity, beside, len(present)) if enough else "",
    )


def _line(frame: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Slope a frame of a straight line through values n d, and the rms distance from it."""
    if len(frame) < 2:
        return np.zeros(values.shape[1]), 0.0
    time = frame - frame.mean()
    slope = time @ values / (time @ time)
    beside = values - values.mean(axis=0) - time[:, None] * slope
    return slope, float(np.sqrt(np.square(beside).sum(axis=1).mean()))


def _straight(velocity: npt.NDArray[np.float64], beside: float, num_frames: int) -> str:
    way = float(np.abs(velocity).max()) * (num_frames - 1)
    if way < LEAST_TRAVEL or beside > UNSTEADY * way:
        return ""
    return _named(velocity)


def _named(velocity: npt.NDArray[np.float64]) -> str:
    x, y = velocity
    if abs(x) > abs(y):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"


def _other_motion(places: npt.NDArray[np.float64], growth: float, turning: float) -> str:
    steps = len(places) - 1
    if np.ptp(places[:, 1]) > LEAST_TRAVEL and np.ptp(places[:, 1]) > 2 * np.ptp(places[:, 0]):
        return "bouncing"
    if abs(growth) * steps > LEAST_GROWTH:
        return "growing" if growth > 0 else "shrinking"
    return "turning" if turning * steps > LEAST_TURN else ""


def _camera_name(path: CameraPath) -> str:
    velocity, zoom, steps = -path.shift.mean(axis=0), float(path.zoom.mean()), len(path.zoom)
    if abs(zoom) * steps > LEAST_GROWTH and abs(zoom) * SIZE / 4 > float(np.abs(velocity).max()):
        return "zooming in" if zoom > 0 else "zooming out"
    return f"panning {_named(velocity)}" if float(np.abs(velocity).max()) * steps > LEAST_TRAVEL else ""
