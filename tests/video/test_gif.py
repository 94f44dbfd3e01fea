from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageSequence

from motion.video import save_clip
from motion.video.gif import bayer_matrix, frame_delays
from tests.video.clips import bar_frame, psnr, smooth_frames


def save_gif(frames, folder, fps=Fraction(8), **options):
    return save_clip(frames, folder, stem="clip", fps=fps, formats=["GIF"], **options).files["GIF"]


def decoded(path):
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def blocks(path):
    """(kind, body) of every block after the global palette, by the GIF89a specification."""
    content = path.read_bytes()
    position = 13 + 3 * 256
    found = []

    def sub_blocks(position):
        body = b""
        while size := content[position]:
            body += content[position + 1 : position + 1 + size]
            position += 1 + size
        return body, position + 1

    while content[position] != 0x3B:
        if content[position] == 0x21:
            kind = content[position + 1]
            body, position = sub_blocks(position + 2)
        else:
            kind = 0x2C
            head = content[position + 1 : position + 10]
            data, position = sub_blocks(position + 11)
            body = head + data
        found.append((kind, body))
    assert position == len(content) - 1
    return found


@pytest.mark.parametrize("fps", ["8", "30", "24000/1001", "12.5", "50", "3", "1/10", "240"])
@pytest.mark.parametrize("num_frames", [1, 16, 100])
def test_delays_sum_to_the_length(fps, num_frames):
    rate = Fraction(fps)
    delays = frame_delays(num_frames, rate)
    assert len(delays) == num_frames
    assert abs(Fraction(sum(delays), 100) - num_frames / rate) <= Fraction(5, 1000)
    assert max(delays) - min(delays) <= 1


@given(num_frames=st.integers(1, 500), fps=st.fractions(Fraction(1, 10), 240, max_denominator=1001))
def test_every_frame_ends_on_time(num_frames, fps):
    ends = np.cumsum(frame_delays(num_frames, fps))
    assert all(abs(Fraction(int(end), 100) - (index + 1) / fps) <= Fraction(1, 200) for index, end in enumerate(ends))


def test_delays_are_in_the_file(tmp_path):
    path = save_gif(smooth_frames(12), tmp_path, Fraction(24000, 1001))
    delays = [int.from_bytes(body[1:3], "little") for kind, body in blocks(path) if kind == 0xF9]
    assert delays == [4, 4, 5, 4, 4, 4, 4, 4, 5, 4, 4, 4]
    with Image.open(path) as image:
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(image)) == 500


def test_equal_frames_are_not_merged(tmp_path):
    path = save_gif([bar_frame()] * 5, tmp_path)
    assert [kind for kind, _ in blocks(path)].count(0x2C) == 5
    assert len(decoded(path)) == 5


def test_one_palette_for_the_whole_clip(tmp_path):
    frames = [np.full((16, 16, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    path = save_gif(frames, tmp_path)
    assert path.read_bytes()[10] == 0b1_111_0_111
    images = [body for kind, body in blocks(path) if kind == 0x2C]
    assert [image[8] for image in images] == [0, 0, 0], "a frame has its own palette"
    for source, frame in zip(frames, decoded(path), strict=True):
        assert np.abs(source.astype(int) - frame).max() <= 1


def test_resting_areas_rest(tmp_path):
    still = smooth_frames(1, 96, 96)[0]
    frames = [still.copy() for _ in range(6)]
    for index, frame in enumerate(frames):
        frame[:16, 8 * index : 8 * index + 8] = (255, 30 * index, 0)
    path = save_gif(frames, tmp_path)
    first, *later = decoded(path)
    for frame in later:
        np.testing.assert_array_equal(frame[16:], first[16:])
    first_bytes, *later_bytes = [len(body) for kind, body in blocks(path) if kind == 0x2C]
    assert max(later_bytes) < first_bytes / 4


def test_dithering_keeps_local_means(tmp_path):
    frames = smooth_frames(4, 128, 96)
    shown = decoded(save_gif(frames, tmp_path))

    def blurred(pictures):
        blur = ImageFilter.GaussianBlur(1.5)
        return np.stack([np.asarray(Image.fromarray(picture).filter(blur)) for picture in pictures])

    assert psnr(np.stack(frames), np.stack(shown)) > 33
    assert psnr(blurred(frames), blurred(shown)) > 40


def test_black_and_white_stay_so(tmp_path):
    frames = [np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8, 3), np.uint8)]
    for source, frame in zip(frames, decoded(save_gif(frames, tmp_path)), strict=True):
        np.testing.assert_array_equal(source, frame)


@pytest.mark.parametrize(("loop_count", "stored"), [(0, 0), (1, None), (2, 1), (65535, 65534)])
def test_loop_count_is_plays(tmp_path, loop_count, stored):
    loops = [body for kind, body in blocks(save_gif(smooth_frames(2), tmp_path, loop_count=loop_count)) if kind == 0xFF]
    assert loops == ([] if stored is None else [b"NETSCAPE2.0\x01" + stored.to_bytes(2, "little")])


@pytest.mark.parametrize(("fps", "slow"), [(8, False), (50, False), (60, True), (240, True)])
def test_frames_that_browsers_slow_down_are_noted(tmp_path, fps, slow):
    clip = save_clip(smooth_frames(6), tmp_path, stem="s", fps=Fraction(fps), formats=["GIF"])
    assert any("100 ms" in note for note in clip.notes) == slow


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (63, 33)])
def test_any_size(tmp_path, size):
    frames = decoded(save_gif(smooth_frames(2, *size), tmp_path))
    assert [frame.shape for frame in frames] == [(size[1], size[0], 3)] * 2


def test_bayer_matrix_has_every_threshold_once():
    assert sorted((bayer_matrix() * 64 - 0.5).reshape(-1)) == list(range(64))
