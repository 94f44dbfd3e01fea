"""What can be said about the shapes world: its names, its captions, and which combinations are never trained on."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from motion.errors import MotionError

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS = ("black", "grey", "blue", "brown")
DIRECTIONS = ("left", "right", "up", "down")

MOVES = tuple(f"moving {direction}" for direction in DIRECTIONS)
MOTIONS = ("", *MOVES, "turning", "growing", "shrinking", "bouncing")
"""What a shape does; "" is nothing. Turning is clockwise, bouncing is on a floor below."""

PANS = tuple(f"panning {direction}" for direction in DIRECTIONS)
CAMERAS = ("", *PANS, "zooming in", "zooming out")
"""What the camera does; "" is nothing. A camera that pans left sees everything move right."""

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}

WORDS = tuple(
    dict.fromkeys(
        ["a", "the", "on", "and", "background", "camera", ","]
        + [word for name in (*COLOURS, *SHAPES, *BACKGROUNDS, *MOTIONS, *CAMERAS) for word in name.split()]
    )
)
"""Every word that a caption can hold, the comma among them, in a fixed order without repeats."""


@dataclass(frozen=True)
class AskedShape:
    """One shape of a caption: a colour of COLOURS, a shape of SHAPES, a motion of MOTIONS."""

    colour: str
    shape: str
    motion: str = ""

    @property
    def direction(self) -> str:
        """One of DIRECTIONS for a shape that moves straight, else ""."""
        return self.motion.split()[1] if self.motion in MOVES else ""


@dataclass(frozen=True)
class Asked:
    """What a caption asks for.

    Attributes:
        shapes: one or two; the first is the main shape, the only one that may have a motion.
        background: one of BACKGROUNDS, or "" where the caption doesn't say.
        camera: one of CAMERAS.
    """

    shapes: tuple[AskedShape, ...]
    background: str = ""
    camera: str = ""

    @property
    def main(self) -> AskedShape:
        """The shape that is judged."""
        return self.shapes[0]

    def without_camera(self) -> Asked:
        """The same, saying nothing of the camera."""
        return replace(self, camera="")

    def at_rest(self) -> Asked:
        """What one frame of it shows: no motion, no camera."""
        return Asked(tuple(replace(shape, motion="") for shape in self.shapes), self.background)


def is_held_out(colour: str, shape: str, direction: str) -> bool:
    """Whether training never shows this colour and shape go in this direction.

    The rule: number colours, shapes and directions in the order of COLOURS, SHAPES, DIRECTIONS; a combination is held
    out when colour + shape - direction is a multiple of four. So each colour and shape miss exactly one direction (a
    quarter of all), each colour and direction miss one shape, and each shape and direction miss one or two colours.
    """
    number = COLOURS.index(colour) + SHAPES.index(shape) - DIRECTIONS.index(direction)
    return number % len(DIRECTIONS) == 0


def screen_directions(motion: str, camera: str = "") -> frozenset[str]:
    """The directions in which a shape goes over the screen; zooming doesn't count, its centre hardly moves."""
    found = {motion.split()[1]} if motion in MOVES else set()
    if motion == "bouncing":
        found |= {"up", "down"}
    if camera in PANS:
        found.add(OPPOSITE[camera.split()[1]])
    return frozenset(found)


def shows_held_out(asked: Asked) -> bool:
    """Whether a shape goes over the screen in a direction that is held out, also by bouncing or by the camera."""
    return any(
        is_held_out(shape.colour, shape.shape, direction)
        for shape in asked.shapes
        for direction in screen_directions(shape.motion, asked.camera)
    )


def describe(asked: Asked, rng: np.random.Generator | None = None) -> str:
    """The caption of `asked`: the canonical one, or with `rng` one of a few ways to say it, half the time canonical.

    A varied caption may leave the background out; then `parse_caption` gives "" for it.
    """
    way = 0 if rng is None else max(0, int(rng.integers(8)) - 3)
    article = "the" if way == 1 else "a"
    things = " and ".join(
        " ".join(word for word in (article, shape.colour, shape.shape, shape.motion) if word) for shape in asked.shapes
    )
    camera = f", camera {asked.camera}" if asked.camera else ""
    if way == 4 or not asked.background:
        return f"{things}{camera}"
    if way == 2:
        return f"on a {asked.background} background, {things}{camera}"
    if way == 3:
        return f"{things}, {asked.background} background{camera}"
    return f"{things} on {article} {asked.background} background{camera}"


def parse_caption(caption: str) -> Asked:
    """What `caption` asks for, in any of the ways that `describe` says it.

    Raises:
        MotionError: a word that is not in WORDS, no shape, or more than two.
    """
    words = re.findall(r"[^\s,]+|,", caption.lower())
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        raise MotionError(
            f"Captions of the shapes world use the words {' '.join(WORDS)}; got '{unknown[0]}' in '{caption}'. "
            "Say it with these."
        )
    shapes: list[AskedShape] = []
    background = camera = ""
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        pair = " ".join(words[index : index + 2])
        if word in SHAPES and before in COLOURS:
            shapes.append(AskedShape(before, word))
        elif word == "background" and before in BACKGROUNDS:
            background = before
        elif pair in CAMERAS:
            camera = pair
        elif shapes and (pair in MOTIONS or word in MOTIONS):
            shapes[-1] = replace(shapes[-1], motion=pair if pair in MOTIONS else word)
    if not 1 <= len(shapes) <= 2:
        raise MotionError(
            f"A caption names one or two shapes such as 'a red circle', got {len(shapes)} in '{caption}'. "
            f"Use the colours {', '.join(COLOURS)} and the shapes {', '.join(SHAPES)}."
        )
    return Asked(tuple(shapes), background, camera)


def direction_prompts(held_out: bool | None = None) -> Iterator[Asked]:
    """One shape moving straight, for every colour, shape, direction and background that go together.

    Ordered so that any prefix is spread over colours, shapes and directions.

    Args:
        held_out: only combinations that are held out (True), only those that are not (False), or all (None).
    """
    combinations = [
        (colour, shape, direction)
        for colour, shape, direction in itertools.product(COLOURS, SHAPES, DIRECTIONS)
        if held_out is None or is_held_out(colour, shape, direction) == held_out
    ]
    # Five is prime to 24, 72 and 96, so that the walk meets each once.
    walk = [combinations[index * 5 % len(combinations)] for index in range(len(combinations))]
    for turn, _ in enumerate(BACKGROUNDS):
        for index, (colour, shape, direction) in enumerate(walk):
            background = BACKGROUNDS[(index + turn) % len(BACKGROUNDS)]
            if background != colour:
                yield Asked((AskedShape(colour, shape, f"moving {direction}"),), background)
