"""Frames: what is taken as one, how they lie on disk, and a sheet of them to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Union

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from motion.errors import OutputError
from motion.video.metadata import PNG_KEY

Frame = Union[Image.Image, "npt.NDArray[np.uint8]"]
"""A Pillow image (L, RGB, RGBA) or a uint8 array h w, h w 1, h w 3 or h w 4, values 0–255 in sRGB."""

_MODES = ("L", "RGB", "RGBA")
# Zlib's level 4 is as small as the default 6 on photographic frames (within 0.1%) and never slower.
_PNG_COMPRESSION = 4


def as_image(frame: Any) -> Image.Image:
    """`frame` as a Pillow image in mode L, RGB or RGBA.

    Raises:
        OutputError: another mode, dtype or shape, or no pixels.
    """
    if isinstance(frame, np.ndarray):
        image = _image_from_array(frame)
    elif isinstance(frame, Image.Image):
        image = frame
    else:
        raise OutputError(f"A frame must be a Pillow image or a uint8 array, got {type(frame).__name__}. Convert it.")
    if image.mode not in _MODES:
        raise OutputError(f"A frame must be in mode {', '.join(_MODES)}, got {image.mode}. Use image.convert('RGB').")
    if 0 in image.size:
        raise OutputError(f"A frame must have pixels, got {image.width}×{image.height}. Give at least 1×1.")
    return image


def _image_from_array(array: npt.NDArray[Any]) -> Image.Image:
    shape = array.shape[:2] if array.ndim == 3 and array.shape[2] == 1 else array.shape
    if array.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise OutputError(
            f"A frame must be a uint8 array h w, h w 1, h w 3 or h w 4, got {array.dtype} of shape {array.shape}. "
            "Scale to 0–255 and put the channels last."
        )
    if 0 in shape:
        raise OutputError(f"A frame must have pixels, got an array of shape {array.shape}. Give at least 1×1.")
    return Image.fromarray(np.ascontiguousarray(array.reshape(shape)))


def as_rgb(image: Image.Image) -> Image.Image:
    """`image` without alpha; what is transparent lies on black."""
    if image.mode == "RGBA":
        opaque = Image.new("RGB", image.size)
        opaque.paste(image, mask=image.getchannel("A"))
        return opaque
    return image.convert("RGB")


def write_png(path: Path, image: Image.Image, infotext: str) -> None:
    """Write `image` without loss, infotext in the text chunk that web UIs read.

    The chunk is tEXt, or iTXt where the text has letters beyond Latin-1.
    """
    text = PngInfo()
    if infotext:
        text.add_text(PNG_KEY, infotext)
    with path.open("xb") as file:
        image.save(file, format="PNG", pnginfo=text, compress_level=_PNG_COMPRESSION)


@dataclass(frozen=True)
class StoredFrames:
    """The frames of a clip, on disk as PNG; in memory one at a time.

    Attributes:
        paths: one file per frame, in order.
        size: width and height of every frame, pixels.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Image.Image]:
        """Each frame in mode RGB, read when asked for."""
        for path in self.paths:
            with Image.open(path) as image:
                yield as_rgb(image)


@dataclass(frozen=True)
class ClipSource:
    """What the writer of a format needs.

    Attributes:
        frames: the frames.
        fps: frames a second, exact.
        loop_count: how often a looping format plays; 0 is for ever.
        infotext: generation parameters, "" for none.
    """

    frames: StoredFrames
    fps: Fraction
    loop_count: int
    infotext: str


def contact_sheet(
    frames: Iterable[Frame], columns: int = 4, *, frame_width: int | None = None, gap: int = 4
) -> Image.Image:
    """All frames on one RGB picture, row by row, on a dark ground.

    Args:
        frames: at least one; each cell is as large as the largest.
        columns: frames in a row.
        frame_width: width to which each frame is scaled, pixels; None keeps the size.
        gap: pixels between and around frames.

    Raises:
        OutputError: no frames, or a number that is not positive.
    """
    images = [as_rgb(as_image(frame)) for frame in frames]
    if not images or columns < 1 or gap < 0 or (frame_width is not None and frame_width < 1):
        raise OutputError(
            f"A contact sheet needs frames, columns and widths of at least 1, got {len(images)} frames, "
            f"columns={columns}, frame_width={frame_width}, gap={gap}. Correct these."
        )
    if frame_width is not None:
        images = [
            image.resize(
                (frame_width, max(1, round(image.height * frame_width / image.width))), Image.Resampling.LANCZOS
            )
            for image in images
        ]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_x = max(image.width for image in images) + gap
    step_y = max(image.height for image in images) + gap
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), (24, 24, 24))
    for index, image in enumerate(images):
        sheet.paste(image, (gap + index % columns * step_x, gap + index // columns * step_y))
    return sheet
