"""Which Stable Diffusion family a motion LoRA belongs to, by the layers that it changes and their widths."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

# Channels per level, in units of the first level's: 320 in SD1.5 and in SDXL.
_CHANNEL_MULT: Mapping[str, tuple[int, ...]] = {"sd15": (1, 2, 4, 4), "sdxl": (1, 2, 4)}
_FIRST_LEVEL = 320
_MIDDLE = "mid_block"
_LEVEL = re.compile(r"(?P<part>down_blocks|up_blocks|mid_block)(?:\.(?P<level>\d+))?\.")

_Level = tuple[str, int]


class UnknownBaseError(ValueError):
    """The layers of a motion LoRA don't tell its base; the message says why."""


def read_base(layers: Iterable[tuple[str, tuple[int, int]]]) -> str:
    """Whichever of "sd15" and "sdxl" alone can have the changed layers.

    A fourth level or a middle block is in SD1.5 only. Where neither is changed, the widths decide: going up, SD1.5 has
    1280, 1280, 640, 320 channels and SDXL 1280, 640, 320.

    Args:
        layers: name of each changed layer in a `MotionModel`, and the shape (out_features, in_features) of its weight.

    Raises:
        UnknownBaseError: they could be in both, or in neither.
    """
    widths = _level_widths(layers)
    candidates = [base for base in _CHANNEL_MULT if all(_has_level(base, level) for level in widths)]
    if len(candidates) == 2:
        units = {base: {_first_level_width(base, *item) for item in widths.items()} for base in candidates}
        candidates = [base for base in candidates if len(units[base]) == 1]
        # A single level fits any family that is wide enough; of the public ones the width is known.
        public = [base for base in candidates if units[base] == {_FIRST_LEVEL}]
        candidates = public or candidates
    if not candidates:
        raise UnknownBaseError("Its layers are those of neither SD1.5 nor SDXL.")
    if len(candidates) > 1:
        raise UnknownBaseError("It changes only layers that SD1.5 and SDXL have alike.")
    return candidates[0]


def changes_middle(layers: Iterable[str]) -> bool:
    """True when a layer of the middle block is among the changed ones."""
    return any(name.startswith(_MIDDLE) for name in layers)


def _level_widths(layers: Iterable[tuple[str, tuple[int, int]]]) -> dict[_Level, int]:
    """Channels of each level, by what most of its layers say."""
    widths: dict[_Level, Counter[int]] = defaultdict(Counter)
    for name, (out_features, in_features) in layers:
        if match := _LEVEL.match(name):
            # Only the second layer of a feed-forward takes in more than the level's channels.
            width = out_features if name.endswith(".ff.net.2") else in_features
            widths[match["part"], int(match["level"] or 0)][width] += 1
    return {level: counts.most_common(1)[0][0] for level, counts in widths.items()}


def _has_level(base: str, level: _Level) -> bool:
    part, number = level
    return base == "sd15" if part == _MIDDLE else number < len(_CHANNEL_MULT[base])


def _first_level_width(base: str, level: _Level, width: int) -> float:
    """Channels of the first level of a UNet of `base` that has `width` channels at `level`."""
    part, number = level
    mult = _CHANNEL_MULT[base]
    return width / (mult[number] if part == "down_blocks" else mult[-1 - number])
