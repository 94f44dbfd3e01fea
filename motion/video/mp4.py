"""MP4 with H.264, through PyAV, which is imported only when a clip is written or read."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motion.errors import OutputError

if TYPE_CHECKING:
    from PIL import Image

    from motion.video.frames import ClipSource

_CODEC = "libx264"
_DEFAULT_CRF = 17  # no loss that can be seen
_MIN_TIMESCALE = 10_000
# Code points of ITU-T H.273: primaries, transfer and matrix of BT.709, 16–235 range ("MPEG" in FFmpeg), 0–255 ("JPEG").
_BT709 = 1
_LIMITED_RANGE = 1
_FULL_RANGE = 2


def _import_av() -> Any:
    try:
        import av
    except Exception as error:  # a broken binary package fails in many ways; only MP4 may go missing for it
        raise OutputError(
            f"MP4 needs the package `av` (PyAV), got: {error}. Install it with `{sys.executable} -m pip install av` "
            "and restart, or choose GIF or PNG."
        ) from error
    return av


def check_mp4() -> None:
    """See that MP4 can be written here.

    Raises:
        OutputError: PyAV is missing or broken, or was built without the H.264 encoder.
    """
    av = _import_av()
    if _CODEC not in av.codecs_available:
        raise OutputError(
            f"MP4 needs the encoder {_CODEC}, got a PyAV ({av.__version__}) without it. Install PyAV's own wheel with "
            f"`{sys.executable} -m pip install --force-reinstall --only-binary av av`, or choose GIF or PNG."
        )


def write_mp4(path: Path, source: ClipSource, *, crf: int = _DEFAULT_CRF) -> tuple[str, ...]:
    """Write `source` as H.264, yuv420p, BT.709, with the index in front, for players and browsers alike.

    yuv420p stores colour for blocks of 2×2 pixels: an odd width or height grows by one, the last column or row
    repeated.

    Args:
        path: new file; its suffix says nothing.
        source: frames, exact rate and infotext, which goes into the tag `comment`.
        crf: x264's constant rate factor, 0 (lossless) to 51.

    Returns:
        What the user should know: nothing.

    Raises:
        OutputError: PyAV or the encoder is missing.
        OSError: the file can't be written.
    """
    check_mp4()
    av = _import_av()
    # The clocks tick in whole parts of a frame, so that rate and length are exact. FFmpeg's own choice for the movie,
    # 1/1000 s, would make the length that players show up to 1 ms too long.
    timescale = source.fps.numerator * math.ceil(_MIN_TIMESCALE / source.fps.numerator)
    options = {
        "movflags": "faststart",
        "video_track_timescale": str(timescale),
        "movie_timescale": str(timescale),
    }
    with av.open(os.path.abspath(path), "w", format="mp4", options=options) as container:
        container.metadata["comment"] = source.infotext
        stream = _add_stream(container, source, crf)
        for index, image in enumerate(source.frames):
            frame = _yuv_frame(av, image)
            frame.pts = index
            frame.time_base = 1 / source.fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return ()


def _add_stream(container: Any, source: ClipSource, crf: int) -> Any:
    stream = container.add_stream(_CODEC, rate=source.fps, options={"crf": str(crf)})
    stream.width, stream.height = (side + side % 2 for side in source.frames.size)
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.time_base = 1 / source.fps
    codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
    codec.color_range = _LIMITED_RANGE
    return stream


def _yuv_frame(av: Any, image: Image.Image) -> Any:
    pixels = np.asarray(image)
    pixels = np.pad(pixels, ((0, image.height % 2), (0, image.width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p", src_color_range=_FULL_RANGE, dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
    )


def read_mp4_comment(path: Path) -> str:
    """Text of the tag `comment`, "" when there is none.

    Raises:
        OutputError: PyAV is missing.
        OSError, ValueError: the file can't be read.
    """
    av = _import_av()
    with av.open(os.path.abspath(path)) as container:
        return str(container.metadata.get("comment", ""))
