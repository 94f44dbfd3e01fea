from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from motion.errors import OutputError
from motion.video import contact_sheet
from motion.video.frames import as_image, as_rgb
from tests.video.clips import smooth_frames


@pytest.mark.parametrize(
    ("shape", "mode"), [((4, 6), "L"), ((4, 6, 1), "L"), ((4, 6, 3), "RGB"), ((4, 6, 4), "RGBA"), ((1, 3), "L")]
)
def test_arrays_become_images(shape, mode):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = as_image(array)
    assert (image.mode, image.size) == (mode, (shape[1], shape[0]))
    np.testing.assert_array_equal(np.asarray(image), array.reshape(shape[:2] + ((shape[2],) if mode != "L" else ())))


def test_strided_arrays_are_read_right():
    array = smooth_frames(1)[0]
    np.testing.assert_array_equal(np.asarray(as_image(array[::-1, ::2])), array[::-1, ::2])


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        Image.new("CMYK", (4, 4)),
        Image.new("I;16", (4, 4)),
        Image.new("RGB", (0, 4)),
        "frame.png",
        None,
    ],
    ids=lambda frame: f"{getattr(frame, 'dtype', getattr(frame, 'mode', frame))}{getattr(frame, 'shape', '')}",
)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(OutputError, match=r"A frame must .*, got "):
        as_image(frame)


def test_alpha_lies_on_black():
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    assert list(as_rgb(image).getdata()) == [(200, 100, 50), (0, 0, 0)]


def test_contact_sheet_shows_every_frame():
    frames = smooth_frames(6, 20, 10)
    sheet = np.asarray(contact_sheet(frames, columns=4, gap=2))
    assert sheet.shape == (2 * 12 + 2, 4 * 22 + 2, 3)
    np.testing.assert_array_equal(sheet[14:24, 24:44], frames[5])
    assert contact_sheet(frames, columns=3, frame_width=10, gap=0).size == (30, 10)
    assert contact_sheet(frames[:1]).size == (28, 18)


def test_contact_sheet_needs_frames():
    with pytest.raises(OutputError, match="at least 1, got 0 frames"):
        contact_sheet([])
