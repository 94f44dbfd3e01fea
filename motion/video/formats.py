"""The table of formats. A new one is a name in `motion.settings.FORMATS` and a row here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from motion.errors import OutputError
from motion.video.frames import ClipSource
from motion.video.gif import write_gif
from motion.video.mp4 import check_mp4, write_mp4

FRAMES_FORMAT = "PNG"
"""The format that needs no encoder: the frames themselves, kept."""


def _always_there() -> None:
    """Pillow is all that is needed."""


@dataclass(frozen=True)
class ClipFormat:
    """How a clip is written as one file.

    Attributes:
        suffix: of the file, with the dot.
        write: (new file, source) -> notes for the user; raises OutputError, OSError or the encoder's own errors.
        check: raises OutputError when the format can't be written here.
    """

    suffix: str
    write: Callable[[Path, ClipSource], tuple[str, ...]]
    check: Callable[[], None] = _always_there


CLIP_FORMATS: Mapping[str, ClipFormat] = MappingProxyType(
    {
        "MP4": ClipFormat(".mp4", write_mp4, check_mp4),
        "GIF": ClipFormat(".gif", write_gif),
    }
)


def check_format_names(formats: Iterable[str]) -> tuple[str, ...]:
    """`formats` once each, in order.

    Raises:
        OutputError: none, or one that is not known.
    """
    names = tuple(dict.fromkeys(formats))
    known = (*CLIP_FORMATS, FRAMES_FORMAT)
    if not names or not set(names) <= set(known):
        raise OutputError(f"Formats must be some of {', '.join(known)}, got {list(names)}. Choose from these.")
    return names


def check_formats(formats: Iterable[str]) -> None:
    """See that every one of `formats` can be written here. Meant to run before sampling.

    Raises:
        OutputError: a format is unknown, or its encoder is missing.
    """
    for name in check_format_names(formats):
        if name in CLIP_FORMATS:
            CLIP_FORMATS[name].check()
