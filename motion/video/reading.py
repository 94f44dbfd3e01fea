"""Clips from disk, frame by frame: videos through PyAV, which is imported only then, and folders of pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from motion.errors import MotionError
from motion.video.frames import as_rgb

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class ReadError(MotionError):
    """A clip can't be read from disk."""


@dataclass(frozen=True)
class ClipFacts:
    """What a clip on disk is, after all of it was decoded.

    Attributes:
        num_frames: frames.
        width: of the upright frames, pixels.
        height: likewise.
        fps: frames a second, on average; None for a folder of pictures.
    """

    num_frames: int
    width: int
    height: int
    fps: float | None


def find_clips(folder: Path) -> list[Path]:
    """Videos in `folder`, and the folders in it that hold pictures, by name."""
    return [path for path in sorted(folder.iterdir()) if _is_video(path) or (path.is_dir() and _pictures(path))]


def read_frames(path: Path) -> Iterator[Image.Image]:
    """The frames of a clip, upright, in mode RGB, each decoded when asked for.

    Args:
        path: a video, or a folder whose pictures are the frames, in the order of their names.

    Raises:
        ReadError: it can't be decoded, or only a part of it.
    """
    if path.is_dir():
        yield from _read_pictures(path)
        return
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        promised, found = int(stream.frames or 0), 0
        for frame in container.decode(stream):
            found += 1
            image = frame.to_image()
            turned = int(getattr(frame, "rotation", 0))  # how a camera was held; players turn it back
            yield image.rotate(turned, expand=True) if turned else image
    if found < promised:
        raise ReadError(
            f"All {promised} frames that the file announces must be in it, got {found}. It is cut off: copy or export "
            "it again."
        )


def inspect_clip(path: Path) -> ClipFacts:
    """Decode all of a clip and say what it is.

    Raises:
        ReadError: as `read_frames`; also frames of different sizes.
    """
    sizes: dict[tuple[int, int], int] = {}
    for image in read_frames(path):
        sizes[image.size] = sizes.get(image.size, 0) + 1
    if len(sizes) != 1:
        shown = ", ".join(f"{width}×{height}" for width, height in sizes) or "no frame at all"
        raise ReadError(f"All frames must have one size, got {shown}. Make them alike.")
    ((width, height), count) = next(iter(sizes.items()))
    return ClipFacts(count, width, height, None if path.is_dir() else _frame_rate(path))


def _read_pictures(folder: Path) -> Iterator[Image.Image]:
    for path in _pictures(folder):
        try:
            with Image.open(path) as image:
                yield as_rgb(ImageOps.exif_transpose(image) or image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ReadError(f"{path.name} must be a picture, got: {error}. Export it again, or remove it.") from error


def _frame_rate(path: Path) -> float | None:
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        return float(rate) if rate else None


class _opened:  # noqa: N801 - a context manager, used as a verb
    """An open container with a video in it; whatever PyAV raises inside becomes a ReadError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._av = _import_av()

    def __enter__(self) -> Any:
        try:
            self._container = self._av.open(str(self._path))
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error
        if not self._container.streams.video:
            self._container.close()
            raise ReadError("There must be a picture track in a video, got a file without one. Choose another file.")
        return self._container

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._container.close()
        if isinstance(error, self._av.FFmpegError | OSError | ValueError):
            raise self._error(error) from error

    def _error(self, error: BaseException) -> ReadError:
        reason = getattr(error, "strerror", None) or str(error)
        return ReadError(f"A video must be readable from start to end, got: {reason}. Copy or export it again.")


def _import_av() -> Any:
    try:
        import av
    except Exception as error:  # a broken binary package fails in many ways
        raise ReadError(
            f"Videos are read with the package `av` (PyAV), got: {error}. Install it with "
            f"`{sys.executable} -m pip install av` and restart, or give folders of pictures.",
            status_code=500,
        ) from error
    return av


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not path.name.startswith(".")


def _pictures(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))
