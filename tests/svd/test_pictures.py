import numpy as np
import pytest
import torch
from PIL import Image

from motion.errors import SettingsError
from motion.svd.pictures import as_picture, fit_picture, to_tensor


def pixel(picture):
    return picture.getpixel((picture.width // 2, picture.height // 2))


def test_rgb_is_taken_as_it_is():
    picture = Image.new("RGB", (20, 30), (10, 20, 30))
    assert as_picture(picture).tobytes() == picture.tobytes()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (20, 20), 100), (100, 100, 100)),
        (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("RGBA", (20, 20), (200, 100, 50, 0)), (0, 0, 0)),
        (Image.new("RGBA", (20, 20), (200, 100, 50, 255)), (200, 100, 50)),
        (Image.new("LA", (20, 20), (200, 0)), (0, 0, 0)),
        (Image.new("I;16", (20, 20), 100 * 257), (100, 100, 100)),
        (Image.new("I", (20, 20), 65535), (255, 255, 255)),
        (Image.new("RGB", (20, 20), (7, 8, 9)).convert("P", palette=Image.Palette.ADAPTIVE), (7, 8, 9)),
        (np.full((20, 20, 3), 40, np.uint8), (40, 40, 40)),
        (np.full((20, 20), 40, np.uint8), (40, 40, 40)),
        (np.full((20, 20, 1), 40, np.uint8), (40, 40, 40)),
        (np.full((20, 20, 3), 65535, np.uint16), (255, 255, 255)),
        (np.full((20, 20, 3), 0.2, np.float32), (51, 51, 51)),
    ],
)
def test_what_users_have_becomes_rgb(picture, expected):
    result = as_picture(picture)
    assert result.mode == "RGB"
    assert pixel(result) == expected


def test_a_cameras_orientation_is_applied():
    picture = Image.new("RGB", (40, 20))
    picture.getexif()[0x0112] = 6  # to be turned by a quarter
    assert as_picture(picture).size == (20, 40)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("picture.png", "must be a Pillow image or an array h w c, got str"),
        (None, "must be a Pillow image or an array h w c, got NoneType"),
        (Image.new("RGB", (15, 200)), "sides of at least 16 pixels, got 15×200"),
        (np.zeros((20, 20, 2), np.uint8), "must be an array h w, h w 3 or h w 4"),
        (np.zeros((0, 20, 3), np.uint8), "must be an array h w, h w 3 or h w 4"),
        (np.full((20, 20, 3), 2.0), "floats from 0 to 1"),
        (np.full((20, 20, 3), np.nan), "floats from 0 to 1"),
        (np.zeros((20, 20, 3), np.int32), "must hold uint8, uint16 or floats, got int32"),
    ],
)
def test_what_can_not_be_a_picture(image, message):
    with pytest.raises(SettingsError, match=message):
        as_picture(image)


def striped(width, height):
    """White in the middle half of its width, black beside it."""
    array = np.zeros((height, width, 3), np.uint8)
    array[:, width // 4 : -(width // 4)] = 255
    return Image.fromarray(array)


def test_fit():
    picture = striped(128, 64)
    cropped, padded, stretched = (np.asarray(fit_picture(picture, 64, 64, fit)) for fit in ("crop", "pad", "stretch"))
    assert {array.shape for array in (cropped, padded, stretched)} == {(64, 64, 3)}
    assert cropped.min() == 255  # the black sides are cut off
    assert padded[0].max() == 0  # a bar
    assert padded[32, 32].min() == 255
    assert stretched[0, 32].min() == 255
    assert stretched[0, 0].max() == 0
    assert fit_picture(picture, 128, 64) is picture
    with pytest.raises(SettingsError, match="one of crop, pad, stretch, got 'tile'"):
        fit_picture(picture, 64, 64, "tile")


def test_tensor_is_between_minus_one_and_one():
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((1, 0), (255, 0, 51))
    expected = torch.tensor([[[[-1.0, 1.0]], [[-1.0, -1.0]], [[-1.0, -0.6]]]])
    torch.testing.assert_close(to_tensor(picture), expected)
