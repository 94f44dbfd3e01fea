"""Kinds of motion modules that other Python packages bring (docs/custom_motion_module.md).

A package names its `CustomMotion` in an entry point of the group "motion.modules". Packages are looked for whenever
the formats are asked for; nothing is kept here. A package that doesn't work costs one line in the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

from motion.checkpoints.file_formats import FILE_FORMATS
from motion.checkpoints.format_types import AnyFormat, CustomMotion, KeyMap, Shape, Shapes
from motion.checkpoints.motion_families import MOTION_FAMILIES, MotionFamily

__all__ = [
    "ENTRY_POINT_GROUP",
    "CustomMotion",
    "KeyMap",
    "MotionFamily",
    "Shape",
    "Shapes",
    "find_custom_formats",
    "known_formats",
]

ENTRY_POINT_GROUP = "motion.modules"

_logger = logging.getLogger(__name__)
_ID = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = frozenset({"auto", *MOTION_FAMILIES, *(known.id for known in FILE_FORMATS)})
_BASES = frozenset(family.base for family in MOTION_FAMILIES.values())
_CATCH_ALL = "motion_variant"


def known_formats() -> tuple[AnyFormat, ...]:
    """The built-in formats and those of other packages, in the order in which they are asked.

    A built-in format's own files can't be claimed by a package; only the one that takes every file with motion
    modules in it comes last.
    """
    built_in = [known for known in FILE_FORMATS if known.id != _CATCH_ALL]
    last = [known for known in FILE_FORMATS if known.id == _CATCH_ALL]
    return (*built_in, *find_custom_formats(), *last)


def find_custom_formats() -> tuple[CustomMotion, ...]:
    """What the installed packages register, by their names; what doesn't work is logged and left out."""
    return tuple(_usable(entry_points(group=ENTRY_POINT_GROUP)))


def _usable(points: Iterable[EntryPoint]) -> Iterator[CustomMotion]:
    taken = set(_RESERVED)
    for point in sorted(points, key=lambda point: (_source(point), point.name)):
        source = _source(point)
        try:
            found = _checked(point.load(), taken)
        except Exception as error:  # another package's code: whatever it raises must not stop the others
            _logger.warning("Motion modules of %s (%s) are left out: %r", source, point.value, error)
            continue
        taken.add(found.id)
        yield replace(found, source=source, matches=_GuardedDetector(found.matches, source))


def _checked(found: object, taken: set[str]) -> CustomMotion:
    if not isinstance(found, CustomMotion):
        raise TypeError(f"the entry point must name a CustomMotion, got {type(found).__name__}")
    if _ID.fullmatch(found.id) is None:
        raise ValueError(f"the family's id must be a word of a-z, 0-9 and _, got {found.id!r}")
    if found.id in taken:
        raise ValueError(f"the family's id {found.id!r} is taken; choose another")
    if found.family.base not in _BASES:
        raise ValueError(f"the family's base must be one of {', '.join(sorted(_BASES))}, got {found.family.base!r}")
    return found


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.name


class _GuardedDetector:
    """A package's detector; when it raises it has not found anything, and says so once."""

    def __init__(self, detector: Callable[[Shapes], bool], source: str) -> None:
        self._detector = detector
        self._source = source
        self._has_failed = False

    def __call__(self, shapes: Shapes) -> bool:
        try:
            return bool(self._detector(shapes))
        except Exception as error:  # as above
            if not self._has_failed:
                _logger.warning("The detector of %s fails, its files are not found: %r", self._source, error)
            self._has_failed = True
            return False
