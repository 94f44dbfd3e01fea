"""The shapes world: short clips of one or two shapes that move as a caption says, drawn from a seed.

It stands in for photographs where models are trained and judged: every caption has one right picture up to place, size
and speed, and `motion.training.shapes_judge` reads back what a picture shows.

A scene is sampled (`sample_scene`), drawn (`render`) and told (`caption`); the same seed gives the same bytes on every
machine. Training never sees a quarter of the colour x shape x direction combinations (`is_held_out`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from motion.errors import MotionError
from motion.training.shapes_drawing import CENTRE, EXTENT, PERIOD, SIZE
from motion.training.shapes_scene import Body, Scene, Track, camera_path, render, tracks
from motion.training.shapes_words import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    PANS,
    SHAPES,
    WORDS,
    Asked,
    AskedShape,
    describe,
    direction_prompts,
    is_held_out,
    parse_caption,
    screen_directions,
    shows_held_out,
)

__all__ = [
    "BACKGROUNDS",
    "CAMERAS",
    "COLOURS",
    "DIRECTIONS",
    "MOTIONS",
    "SHAPES",
    "SIZE",
    "WORDS",
    "Asked",
    "AskedShape",
    "Body",
    "Scene",
    "Track",
    "caption",
    "describe",
    "direction_prompts",
    "is_held_out",
    "parse_caption",
    "render",
    "sample_asked",
    "sample_scene",
    "scene_of",
    "scene_rng",
    "shows_held_out",
    "tracks",
]

SPLITS = ("train", "held out", "all")

MOTION_SHARES = (1.5, 2.5, 2.5, 2.5, 2.5, 1.5, 1.0, 1.0, 1.5)
"""How often each of MOTIONS is sampled, in their order, where the camera rests."""

CAMERA_SHARES = (24.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""How often each of CAMERAS is sampled, in their order."""

TWO_SHAPES_SHARE = 0.15
"""How many of the scenes have two shapes, where the camera rests."""

MARGIN = 1.0  # pixels between a shape and the edge of the frame, and between two shapes
TRIES = 1000


def scene_rng(seed: int, index: int = 0) -> np.random.Generator:
    """The random numbers of clip `index` of the data set `seed`; PCG64, the same on every machine."""
    return np.random.Generator(np.random.PCG64([seed, index]))


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The scene's caption, canonical or, with `rng`, said in one of a few ways; see `describe` for other wishes."""
    return describe(scene.asked, rng)


def sample_scene(
    rng: np.random.Generator,
    *,
    num_frames: int = 16,
    split: str = "train",
    two_shapes: bool | None = None,
    **fixed: str,
) -> Scene:
    """A scene; arguments as for `sample_asked`, and the number of frames.

    Raises:
        MotionError: as `sample_asked` and `scene_of`.
    """
    return scene_of(sample_asked(rng, split=split, two_shapes=two_shapes, **fixed), rng, num_frames=num_frames)


def sample_asked(
    rng: np.random.Generator, *, split: str = "train", two_shapes: bool | None = None, **fixed: str
) -> Asked:
    """What a scene shows: shapes, motion, background and camera, independently up to what goes together.

    A shape never has the background's colour, a circle never turns, two shapes differ in colour. The camera moves only
    before shapes that rest or turn, and before one shape, unless `fixed` says otherwise.

    Args:
        rng: random numbers.
        split: "train" for what may be trained on, "held out" for scenes of the combinations that may not, or "all".
        two_shapes: whether there is a second, resting shape; None for sometimes.
        fixed: parts that are not left to chance: colour, shape and motion of the main shape, background, camera.

    Raises:
        MotionError: an unknown split or part, or parts that don't go together in this split.
    """
    _check_fixed(split, fixed)
    for _ in range(TRIES):
        asked = _draw_asked(rng, two_shapes, fixed)
        if _goes_together(asked) and (split == "all" or shows_held_out(asked) == (split == "held out")):
            return asked
    raise MotionError(
        f"No scene of the split '{split}' has {fixed or 'anything'}: either the combination is not in this split, or "
        "these parts don't go together. Leave one of them to chance or choose another split."
    )


def _check_fixed(split: str, fixed: dict[str, str]) -> None:
    known = {"colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "background": BACKGROUNDS, "camera": CAMERAS}
    if split not in SPLITS:
        raise MotionError(f"`split` must be one of {', '.join(SPLITS)}, got '{split}'. Choose one of these.")
    for part, name in fixed.items():
        if part not in known:
            raise MotionError(f"Parts of a scene are {', '.join(known)}, got `{part}`. Fix one of these.")
        if name not in known[part]:
            raise MotionError(f"`{part}` must be one of {known[part]}, got '{name}'. Choose one of these.")


def _draw_asked(rng: np.random.Generator, two_shapes: bool | None, fixed: dict[str, str]) -> Asked:
    """Any combination; every number is drawn in the same order, fixed parts too."""
    colour, shape, background = (_pick(rng, names) for names in (COLOURS, SHAPES, BACKGROUNDS))
    camera = fixed.get("camera", _weighted(rng, CAMERAS, CAMERA_SHARES))
    motion = _weighted(rng, MOTIONS, MOTION_SHARES)
    if camera and motion != "turning":
        motion = ""
    second = AskedShape(_pick(rng, COLOURS), _pick(rng, SHAPES))
    with_second = rng.random() < TWO_SHAPES_SHARE and not camera
    main = AskedShape(fixed.get("colour", colour), fixed.get("shape", shape), fixed.get("motion", motion))
    shapes = (main, second) if (with_second if two_shapes is None else two_shapes) else (main,)
    return Asked(shapes, fixed.get("background", background), camera)


def _goes_together(asked: Asked) -> bool:
    colours = [shape.colour for shape in asked.shapes]
    turns_circle = asked.main.shape == "circle" and asked.main.motion == "turning"
    return not turns_circle and len({asked.background, *colours}) == len(colours) + 1


def scene_of(asked: Asked, rng: np.random.Generator, *, num_frames: int = 16) -> Scene:
    """A scene that shows what is asked, with place, sizes and speeds by chance.

    All shapes stay whole inside the frame and apart from each other in all frames. Straight moves, pans, growing and
    zooming go the same way in total however long the clip is; turning and bouncing have the same speed.

    Raises:
        MotionError: fewer than two frames.
    """
    if num_frames < 2:
        raise MotionError(f"A clip has at least 2 frames, got {num_frames}. Raise `num_frames`.")
    background = asked.background or _pick(rng, [name for name in BACKGROUNDS if name != asked.main.colour])
    both = bool(asked.camera in PANS and asked.main.direction)
    camera_rate = _rate(rng, asked.camera, num_frames) * (0.5 if both else 1.0)
    offset = (rng.uniform(0, PERIOD), rng.uniform(0, PERIOD))
    scene = Scene((), background, asked.camera, camera_rate, offset, num_frames)
    low, high = (12.0, 15.0) if len(asked.shapes) == 1 else (9.0, 11.5)
    if asked.main.motion in ("growing", "shrinking") or asked.camera.startswith("zooming"):
        low, high = low - 0.5, high - 1.5
    bodies = tuple(
        Body(
            shape,
            CENTRE,
            CENTRE,
            size=rng.uniform(low, high),
            rate=_rate(rng, shape.motion, num_frames) * (0.5 if both else 1.0),
            height=rng.uniform(14, 22) if shape.motion == "bouncing" else 0.0,
        )
        for shape in asked.shapes
    )
    for _ in range(TRIES):
        placed = _placed(replace(scene, bodies=bodies), rng)
        if placed is not None:
            return placed
        bodies = tuple(replace(body, size=body.size * 0.98) for body in bodies)
    raise MotionError(f"No place was found for {describe(asked)} in {TRIES} tries. Ask for less at once.")


def _rate(rng: np.random.Generator, motion: str, num_frames: int) -> float:
    """A speed in the units of `Body.rate` and `Scene.camera_rate`."""
    steps = num_frames - 1
    if motion.startswith(("moving", "panning")):
        return rng.uniform(22, 30) / steps
    if motion in ("growing", "shrinking", "zooming in", "zooming out"):
        return rng.uniform(0.5, 0.7) / steps
    if motion == "turning":
        return math.radians(rng.uniform(4, 7))
    return 1 / rng.uniform(11, 15) if motion == "bouncing" else 0.0


def _placed(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """`scene` with its shapes, which lie in the middle, at places by chance; None where one has no room or they touch.

    Under a zooming camera one resting shape stays within 3 px of the middle, so that it doesn't seem to move.
    """
    zoom = camera_path(scene)[1]
    spread = (zoom / zoom[0])[:, None]  # how far a frame shows from the middle what the first shows at one pixel
    placed = []
    for body, track in zip(scene.bodies, tracks(scene), strict=True):
        reach = (EXTENT[body.asked.shape] * track.size + MARGIN)[:, None]
        low = ((reach - track.centre) / spread).max(axis=0)
        high = ((SIZE - reach - track.centre) / spread).min(axis=0)
        if scene.camera.startswith("zooming") and len(scene.bodies) == 1 and not screen_directions(body.asked.motion):
            low, high = np.maximum(low, -3), np.minimum(high, 3)
        if (low > high).any():
            return None
        x, y = rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])
        placed.append(replace(body, x=CENTRE + x, y=CENTRE + y))
    found = replace(scene, bodies=tuple(placed))
    return found if _apart(found) else None


def _apart(scene: Scene) -> bool:
    reach = [
        (track.centre, EXTENT[body.asked.shape] * track.size)
        for body, track in zip(scene.bodies, tracks(scene), strict=True)
    ]
    return all(
        bool((np.hypot(*(first[0] - second[0]).T) > first[1] + second[1] + MARGIN).all())
        for index, first in enumerate(reach)
        for second in reach[:index]
    )


def _weighted(rng: np.random.Generator, names: Sequence[str], shares: Sequence[float]) -> str:
    place = rng.random() * sum(shares)
    for name, share in zip(names, shares, strict=True):
        place -= share
        if place < 0:
            return name
    return names[-1]


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]
