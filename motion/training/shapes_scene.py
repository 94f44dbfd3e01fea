"""A scene of the shapes world: what is in it, where everything is in each frame, and its pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from motion.training.shapes_drawing import CENTRE, SHAPE_RGB, background, exact, paint
from motion.training.shapes_words import PANS, Asked, AskedShape

STEP = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Body:
    """A shape in the world.

    Attributes:
        asked: its colour, shape and motion.
        x: its centre in the first frame, screen pixels from the left; for "bouncing" the same in all frames.
        y: the same from the top; for "bouncing" its lowest place, on the floor.
        size: pixels, see `shapes_drawing.EXTENT`; half-way through the clip where the size changes.
        rate: moving: pixels a frame. Turning: radians a frame, clockwise. Growing and shrinking: the logarithm of the
            size's factor a frame, positive for both. Bouncing: bounces a frame. Else 0.
        height: how high a bouncing shape jumps, pixels.
    """

    asked: AskedShape
    x: float
    y: float
    size: float
    rate: float = 0.0
    height: float = 0.0


@dataclass(frozen=True)
class Scene:
    """All that is needed to draw a clip.

    Attributes:
        bodies: one or two; the first is the main one.
        background: one of BACKGROUNDS.
        camera: one of CAMERAS.
        camera_rate: panning: pixels a frame. Zooming: the logarithm of the factor a frame, positive for both. Else 0.
        offset: the point of the background in the middle of the first frame, x and y in world pixels.
        num_frames: length of the clip.
    """

    bodies: tuple[Body, ...]
    background: str
    camera: str = ""
    camera_rate: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)
    num_frames: int = 16

    @property
    def asked(self) -> Asked:
        """What the scene's caption says."""
        return Asked(tuple(body.asked for body in self.bodies), self.background, self.camera)


@dataclass(frozen=True)
class Track:
    """Where a shape is on the screen, frame by frame, float64.

    Attributes:
        centre: f 2, x and y in pixels from the upper left corner; the middle of a pixel is at a half.
        size: f, pixels.
        angle: f, radians clockwise.
    """

    centre: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]
    angle: npt.NDArray[np.float64]


def camera_path(scene: Scene) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The middle of the frame in world pixels from its first place, f 2, and screen pixels per world pixel, f."""
    frame = np.arange(scene.num_frames, dtype=np.float64)
    path, zoom = np.zeros((scene.num_frames, 2)), np.ones(scene.num_frames)
    if scene.camera in PANS:
        path = frame[:, None] * scene.camera_rate * np.asarray(STEP[scene.camera.split()[1]], np.float64)
    elif scene.camera:
        sign = 1 if scene.camera == "zooming in" else -1
        zoom = np.exp(sign * scene.camera_rate * (frame - frame.mean()))
    return path, zoom


def _track(body: Body, scene: Scene) -> Track:
    frame = np.arange(scene.num_frames, dtype=np.float64)
    path, zoom = camera_path(scene)
    moved, size, angle = np.zeros((scene.num_frames, 2)), np.full(scene.num_frames, body.size), np.zeros_like(frame)
    motion = body.asked.motion
    if body.asked.direction:
        moved = frame[:, None] * body.rate * np.asarray(STEP[body.asked.direction], np.float64)
    elif motion == "turning":
        angle = frame * body.rate
    elif motion in ("growing", "shrinking"):
        size = body.size * np.exp((1 if motion == "growing" else -1) * body.rate * (frame - frame.mean()))
    elif motion == "bouncing":
        phase = (frame * body.rate) % 1
        moved[:, 1] = -4 * body.height * phase * (1 - phase)
    start = (np.asarray([body.x, body.y]) - CENTRE) / zoom[0]
    return Track(CENTRE + (start + moved - path) * zoom[:, None], size * zoom, angle)


def tracks(scene: Scene) -> tuple[Track, ...]:
    """Where each shape is on the screen."""
    return tuple(_track(body, scene) for body in scene.bodies)


def render(scene: Scene) -> npt.NDArray[np.uint8]:
    """The clip, f h w c, sRGB."""
    path, zoom = camera_path(scene)
    frames = background(scene.background, exact(path + np.asarray(scene.offset)), exact(zoom))
    for body, track in zip(scene.bodies, tracks(scene), strict=True):
        rgb = SHAPE_RGB[body.asked.colour]
        paint(frames, body.asked.shape, rgb, exact(track.centre), exact(track.size), exact(track.angle))
    frames += np.float32(0.5)
    return np.ascontiguousarray(np.moveaxis(frames.astype(np.uint8), 0, -1))  # c f h w -> f h w c
