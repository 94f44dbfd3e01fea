"""The left side of a keyframe line: which frames it is for, how it leads to the next one, and values beside its text.

```
key [options] :
key      8      frame 8, counted from 0
         -1     the last frame; -2 the one before
         0.5    a fraction of the clip, written with a point: 0.0 is the first frame, 1.0 the last
         8-12   frames 8 to 12, both included; the ends may be any of the above
options  hold   stay as it is until the next keyframe, then jump; without it, blend towards the next
         linear, ease-in, ease-out, ease-in-out     speed of that blend; linear where none is named
         cfg=7.5, motion=0.8                        values of this frame (prompt only)
```

Spaces are free. Nothing here knows torch.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

from motion.errors import SettingsError

EASINGS = ("linear", "ease-in", "ease-out", "ease-in-out")
HOLD = "hold"
VALUE_LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType({"cfg": (0.0, 100.0), "motion": (0.0, 2.0)})
"""Value that a keyframe may set -> least and most."""

_NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)"
_KEY = re.compile(rf"({_NUMBER})(?:\s*-\s*({_NUMBER}))?(?![\w.])")
_OPTION = re.compile(r"([A-Za-z][\w-]*)(?:\s*=\s*([^\s=]*))?")
_MAX_DIGITS = 18


@dataclass(frozen=True)
class Position:
    """A place in a clip of any length.

    Attributes:
        text: as written: "8", "-1" or "0.5".
    """

    text: str

    def frame(self, num_frames: int) -> int:
        """The frame in a clip of `num_frames`, from 0; a fraction takes the nearest.

        Raises:
            SettingsError: the clip has no such frame, or the fraction is not from 0.0 to 1.0.
        """
        if len(self.text) > _MAX_DIGITS:
            raise SettingsError(f"Frame {self.text[:_MAX_DIGITS]}… has too many digits. Write a shorter number.")
        if "." in self.text:
            share = Fraction(self.text if self.text[-1] != "." else self.text + "0")
            if not 0 <= share <= 1:
                raise SettingsError(
                    f"A place with a point is a fraction of the clip from 0.0 to 1.0, got {self.text}. "
                    "Write a whole number for a frame."
                )
            return int(share * (num_frames - 1) + Fraction(1, 2))
        number = int(self.text)
        frame = number + num_frames if self.text.startswith("-") else number
        if not 0 <= frame < num_frames:
            raise SettingsError(
                f"Frame {self.text} is outside the clip, whose frames are 0 to {num_frames - 1}. "
                "Lower it or lengthen the clip."
            )
        return frame


@dataclass(frozen=True)
class Key:
    """The left side of a keyframe line.

    Attributes:
        first: where it begins.
        last: where its range ends, included; None for a single frame.
        hold: stay until the next keyframe.
        easing: speed of the blend towards the next one, of EASINGS.
        values: values that it sets, by name of VALUE_LIMITS.
    """

    first: Position
    last: Position | None = None
    hold: bool = False
    easing: str = EASINGS[0]
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The key as `parse_key` reads it."""
        words = [self.first.text if self.last is None else f"{self.first.text}-{self.last.text}"]
        if self.hold:
            words.append(HOLD)
        if self.easing != EASINGS[0]:
            words.append(self.easing)
        return " ".join([*words, *(f"{name}={value!r}" for name, value in self.values.items())])

    def frames(self, num_frames: int) -> tuple[int, int]:
        """First and last frame in a clip of `num_frames`.

        Raises:
            SettingsError: outside the clip, or a range that ends before it begins.
        """
        first = self.first.frame(num_frames)
        last = first if self.last is None else self.last.frame(num_frames)
        if last < first:
            raise SettingsError(f"A range must not end before it begins, got frames {first} to {last}. Turn it round.")
        return first, last


def parse_key(text: str) -> Key | None:
    """The key that is all of `text`, or None where it doesn't begin with a number or goes on with words of no meaning.

    Raises:
        SettingsError: it begins as a key and goes on as none: a misspelt option, or a value that is out of range.
    """
    match = _KEY.match(text.strip())
    if match is None:
        return None
    options = text.strip()[match.end() :].strip()
    last = None if match[2] is None else Position(match[2])
    if not options:
        return Key(Position(match[1]), last)
    found = [(option[1], option[2]) for option in _OPTION.finditer(options)]
    if _OPTION.sub("", options).strip() or not _are_options(found):
        return None
    return _with_options(Position(match[1]), last, found)


def eased(easing: str, share: float) -> float:
    """Share of the next keyframe, 0 to 1, at a share of the way to it."""
    if easing == "ease-in":
        return share * share
    if easing == "ease-out":
        return share * (2.0 - share)
    return share * share * (3.0 - 2.0 * share) if easing == "ease-in-out" else share


def _known() -> tuple[str, ...]:
    return (HOLD, *EASINGS, *VALUE_LIMITS)


def _are_options(found: list[tuple[str, str | None]]) -> bool:
    """True where at least one word is an option, has a value, or is nearly one: the line means to be a keyframe."""
    return any(value is not None or difflib.get_close_matches(name.lower(), _known(), 1, 0.7) for name, value in found)


def _with_options(first: Position, last: Position | None, found: list[tuple[str, str | None]]) -> Key:
    hold, easing = False, ""
    values: dict[str, float] = {}
    for written, value in found:
        name = written.lower()
        if value is not None and name in VALUE_LIMITS and name not in values:
            values[name] = read_value(name, value)
        elif value is None and name == HOLD and not hold:
            hold = True
        elif value is None and name in EASINGS and not easing:
            easing = name
        else:
            raise SettingsError(
                f"A keyframe takes one each of {HOLD}, an easing ({', '.join(EASINGS)}), cfg=7 and motion=1, "
                f"got {written if value is None else f'{written}={value}'}. Remove or correct it."
            )
    return Key(first, last, hold, easing or EASINGS[0], values)


def read_value(name: str, text: str) -> float:
    """The number that `text` is, as a value of VALUE_LIMITS.

    Raises:
        SettingsError: it is none, or out of range.
    """
    low, high = VALUE_LIMITS[name]
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise SettingsError(f"{name} must be a number from {low:g} to {high:g}, got '{text}'. Choose a value in it.")
    return number
