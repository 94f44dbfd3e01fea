"""GIF with one palette for the whole clip, exact frame count and exact length.

The container is written here (W3C, GIF89a specification) and Pillow compresses the pixels: Pillow's own writer merges
equal frames, may give frames palettes of their own, and keeps every frame in memory.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from motion.video.frames import ClipSource, StoredFrames

_NUM_COLOURS = 255
_UNCHANGED = 255  # palette index that shows the frame before: what does not move costs next to nothing
_SAMPLES_PER_CLIP = 32_768
_MIN_SAMPLES_PER_FRAME = 64
_SETTLED_SHARE = 50  # k-means ends when under 1/50 of the samples change cluster: 0.1 dB worse, 4 times as fast
_DITHER_SIZE = 8
_SLOW_BELOW = 2  # hundredths of a second: browsers play shorter frames at a tenth of a second
_KEEP_FRAME = 1 << 2  # disposal method 1: leave the frame standing
_TRANSPARENCY = 1


def write_gif(path: Path, source: ClipSource) -> tuple[str, ...]:
    """Write `source` as a GIF89a; infotext goes into a comment block.

    `loop_count` counts plays: 1 has no loop block, n > 1 asks for n - 1 repeats, 0 for ever.

    Returns:
        What the user should know: a note when browsers will play the clip too slowly.

    Raises:
        OSError: the file can't be written.
    """
    delays = frame_delays(len(source.frames), source.fps)
    dither = OrderedDither(clip_palette(source.frames), source.frames.size)
    with path.open("xb") as file:
        _write_header(file, source, dither.palette)
        previous: npt.NDArray[np.uint8] | None = None
        for image, delay in zip(source.frames, delays, strict=True):
            indices = dither.indices(image)
            unchanged = np.zeros_like(indices, dtype=bool) if previous is None else indices == previous
            _write_frame(file, np.where(unchanged, np.uint8(_UNCHANGED), indices), delay, previous is not None)
            previous = indices
        file.write(b";")
    if len(delays) > 1 and min(delays) < _SLOW_BELOW:
        return (
            f"GIF: at {float(source.fps):g} frames a second some frames last less than 20 ms, and browsers slow such "
            "frames down to 100 ms. Use 50 frames a second or fewer, or watch the MP4.",
        )
    return ()


def frame_delays(num_frames: int, fps: Fraction) -> list[int]:
    """How long each frame stands, in GIF's unit of 10 ms.

    Each frame ends at its exact time rounded to the unit, so no error adds up: the clip's length is right within 5 ms.
    """
    ends = [math.floor(index * 100 / fps + Fraction(1, 2)) for index in range(num_frames + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


def clip_palette(frames: StoredFrames) -> list[int]:
    """256 colours r g b r g b …, by median cut and k-means over pixels drawn evenly from all frames.

    At most 255 differ and stand first; the rest, the index of unchanged pixels among them, repeat the first colour.
    """
    count = max(_MIN_SAMPLES_PER_FRAME, _SAMPLES_PER_CLIP // len(frames))
    generator = np.random.default_rng(0)
    samples = [_sampled(np.asarray(image), count, generator) for image in frames]
    strip = Image.fromarray(np.concatenate(samples)[None])  # n c -> 1 n c
    settled = max(1, strip.width // _SETTLED_SHARE)
    quantized = strip.quantize(_NUM_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=settled)
    num_used = max(quantized.tobytes()) + 1
    palette = list((quantized.getpalette() or [])[: 3 * num_used])
    return palette + palette[:3] * (256 - num_used)


def _sampled(pixels: npt.NDArray[np.uint8], count: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    flat = pixels.reshape(-1, 3)  # h w c -> (h w) c
    return flat if len(flat) <= count else flat[generator.integers(0, len(flat), count)]


class OrderedDither:
    """Maps frames to palette indices, mixing two palette colours in a pattern that stands still.

    Error diffusion (what Pillow and most tools do) makes resting areas shimmer, because one changed pixel changes the
    pattern of all that follow. Here the choice depends on the pixel's colour and place only. Per pixel: c1 is the
    colour nearest to x; c2 is the one nearest to x + 2 (x - c1), on the far side of x; c2 is taken when the share of
    it that x needs, (x - c1)·(c2 - c1) / |c2 - c1|², is above the pixel's threshold in a Bayer matrix.
    """

    _REACH = 2  # 1 finds too few partners, 3 and more are grainier (measured on gradients)

    def __init__(self, palette: list[int], size: tuple[int, int]) -> None:
        self.palette = palette
        self._colours = np.array(palette, dtype=np.int16).reshape(-1, 3)  # (256 3) -> 256 3
        self._palette_image = Image.new("P", (1, 1))
        self._palette_image.putpalette(palette)
        width, height = size
        tiles = (-(-height // _DITHER_SIZE), -(-width // _DITHER_SIZE))
        self._thresholds = np.tile(bayer_matrix(), tiles)[:height, :width]

    def indices(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Palette index of every pixel of the RGB `image`; uint8, h w."""
        pixels = np.asarray(image).astype(np.int16)
        first = self._nearest(image)
        error = pixels - self._colours[first]
        beyond = np.clip(pixels + self._REACH * error, 0, 255).astype(np.uint8)
        second = self._nearest(Image.fromarray(beyond))
        step = (self._colours[second] - self._colours[first]).astype(np.float32)
        along = np.einsum("hwc,hwc->hw", error, step)
        length = np.einsum("hwc,hwc->hw", step, step)
        return np.where(along > self._thresholds * length, second, first)

    def _nearest(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        return np.asarray(image.quantize(palette=self._palette_image, dither=Image.Dither.NONE))


def bayer_matrix() -> npt.NDArray[np.float32]:
    """Thresholds between 0 and 1 of Bayer's ordered dither (1973), float32, 8 8."""
    matrix = np.zeros((1, 1))
    while len(matrix) < _DITHER_SIZE:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return ((matrix + 0.5) / matrix.size).astype(np.float32)


def _write_header(file: BinaryIO, source: ClipSource, palette: Iterable[int]) -> None:
    width, height = source.frames.size
    global_palette_of_256 = 0b1_111_0_111
    file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, global_palette_of_256, 0, 0) + bytes(palette))
    if source.loop_count != 1:
        repeats = max(0, source.loop_count - 1)
        file.write(b"\x21\xff\x0bNETSCAPE2.0" + struct.pack("<BBHB", 3, 1, repeats, 0))
    comment = source.infotext.encode("utf-8")
    if comment:
        blocks = (comment[start : start + 255] for start in range(0, len(comment), 255))
        file.write(b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00")


def _write_frame(file: BinaryIO, indices: npt.NDArray[np.uint8], delay: int, shows_previous: bool) -> None:
    flags = _KEEP_FRAME | (_TRANSPARENCY if shows_previous else 0)
    file.write(b"\x21\xf9" + struct.pack("<BBHBB", 4, flags, delay, _UNCHANGED if shows_previous else 0, 0))
    height, width = indices.shape
    file.write(b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0))
    image = Image.frombytes("P", (width, height), indices.tobytes())
    bits, interlace = 8, 0
    file.write(bytes([bits]) + image.tobytes("gif", ("P", bits, interlace)) + b"\x00")
