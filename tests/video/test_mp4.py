from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from motion.video import save_clip
from tests.video.clips import BARS, bar_frame, decoded_mp4, psnr, smooth_frames

RATES = ["1/10", "8", "25/2", "24000/1001", "30", "237/10", "60000/1001", "240"]


def movie_seconds(path):
    """Length that the movie header (ISO/IEC 14496-12, mvhd version 0) states, which is what players show."""
    content = path.read_bytes()
    start = content.index(b"mvhd") + 16
    timescale, duration = struct.unpack(">II", content[start : start + 8])
    return Fraction(duration, timescale)


def save_mp4(frames, folder, fps=Fraction(8), **options):
    return save_clip(frames, folder, stem="clip", fps=fps, formats=["MP4"], **options).files["MP4"]


@pytest.mark.parametrize("num_frames", [1, 2, 16])
@pytest.mark.parametrize("fps", [Fraction(rate) for rate in RATES], ids=RATES)
def test_rate_length_and_count_are_exact(tmp_path, fps, num_frames):
    path = save_mp4(smooth_frames(num_frames), tmp_path, fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.average_rate == fps
        assert stream.duration * stream.time_base == num_frames / fps
        assert container.duration == pytest.approx(1e6 * num_frames / fps, abs=1)
        assert movie_seconds(path) == num_frames / fps
        assert [frame.pts * frame.time_base for frame in frames] == [index / fps for index in range(num_frames)]


def test_container_is_what_players_want(tmp_path):
    path = save_mp4(smooth_frames(3), tmp_path)
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.width, codec.height) == ("h264", "yuv420p", 64, 48)
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 1, 1, 1)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"colrnclx" in content


def test_smooth_frames_come_back(tmp_path):
    frames = smooth_frames(8, 96, 64)
    for source, decoded in zip(frames, decoded_mp4(save_mp4(frames, tmp_path)), strict=True):
        assert psnr(source, decoded) >= 38


def test_colours_come_back(tmp_path):
    decoded = decoded_mp4(save_mp4([bar_frame()] * 4, tmp_path))
    for index, colour in enumerate(BARS):
        inside = decoded[2][8:-8, index * 16 + 4 : index * 16 + 12]
        assert np.abs(inside.mean((0, 1)) - colour).max() < 2.5


@pytest.mark.parametrize("size", [(63, 33), (64, 33), (63, 34)])
def test_odd_sides_grow_by_a_repeated_line(tmp_path, size):
    width, height = size
    frames = smooth_frames(3, width, height)
    decoded = decoded_mp4(save_mp4(frames, tmp_path))
    assert len(decoded) == 3
    for source, frame in zip(frames, decoded, strict=True):
        padded = np.pad(source, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        assert frame.shape == padded.shape
        assert psnr(padded, frame) > 30


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1)])
def test_tiny_frames(tmp_path, size):
    frames = [np.full((size[1], size[0], 3), (40 * index, 200, 90), np.uint8) for index in range(5)]
    decoded = decoded_mp4(save_mp4(frames, tmp_path))
    for source, frame in zip(frames, decoded, strict=True):
        assert frame.shape == (2, size[0] + size[0] % 2, 3)
        assert np.abs(frame - source[0, 0]).max() < 4


def test_alpha_lies_on_black_and_grey_is_grey(tmp_path):
    half = Image.new("RGBA", (32, 32), (200, 100, 40, 128))
    assert np.abs(decoded_mp4(save_mp4([half], tmp_path))[0].mean((0, 1)) - [100, 50, 20]).max() < 3
    assert np.abs(decoded_mp4(save_mp4([np.full((32, 32), 77, np.uint8)], tmp_path))[0] - 77).max() < 3


def test_broken_av_disables_mp4_only(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "av.py").write_text("raise ValueError('numpy.dtype size changed')\n")
    script = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from motion.errors import OutputError
from motion.video import IncompleteClipError, check_formats, read_infotext, save_clip
assert "av" not in sys.modules
check_formats(["GIF", "PNG"])
try:
    check_formats(["GIF", "MP4"])
except OutputError as error:
    assert "-m pip install av" in str(error) and "dtype size changed" in str(error), error
else:
    raise SystemExit("not noticed")
try:
    save_clip([np.zeros((4, 4, 3), np.uint8)], Path(sys.argv[2]), stem="s", fps=Fraction(8), formats=["MP4", "GIF"])
except IncompleteClipError as error:
    assert list(error.failures) == ["MP4"] and "-m pip install av" in str(error), error
    assert error.clip.files["GIF"].is_file() and error.clip.frames[0].is_file()
else:
    raise SystemExit("not noticed")
"""
    command = [sys.executable, "-c", script, str(tmp_path / "broken"), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=60)
