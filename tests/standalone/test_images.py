"""Saved pictures: names, infotext, callbacks; resizing and grids."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motion.standalone import images, masking, namespace, script_callbacks

TEXT = "a cat, größer\nNegative prompt: 犬\nSteps: 20, Sampler: Euler a, Seed: 5"


@pytest.fixture(autouse=True)
def host(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path / "data")]) as state:
        state.opts.save_to_dirs = False
        yield state


def picture(width=16, height=8, colour=(200, 30, 60)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif"])
def test_infotext_is_read_back(tmp_path, extension):
    path, text_file = images.save_image(picture(), tmp_path, "", 5, "a cat", extension, info=TEXT)
    assert text_file is None
    assert images.read_info_from_image(images.read(path))[0] == TEXT


def test_no_infotext_where_it_is_off(tmp_path, host):
    host.opts.enable_pnginfo = False
    path, _ = images.save_image(picture(), tmp_path, "", 5, "a cat", "png", info=TEXT)
    assert images.read_info_from_image(Image.open(path)) == (None, {})


def test_text_file_beside_the_picture(tmp_path, host):
    host.opts.save_txt = True
    path, text_file = images.save_image(picture(), tmp_path, "", 5, "a cat", "png", info=TEXT)
    assert Path(text_file).read_text(encoding="utf8") == f"{TEXT}\n"
    assert os.path.splitext(text_file)[0] == os.path.splitext(path)[0]


def test_names_are_numbered(tmp_path):
    names = [images.save_image(picture(), tmp_path, "", 5, "a cat: (red)")[0] for _ in range(2)]
    names += [
        images.save_image(picture(), tmp_path, "grid", 5, "x", short_filename=True, grid=True, save_to_dirs=False)[0]
    ]
    assert [os.path.basename(name) for name in names] == [
        "00000-5-a cat_ (red).png",
        "00001-5-a cat_ (red).png",
        "grid-0000.png",
    ]


def test_subfolder_by_date(tmp_path, host):
    host.opts.save_to_dirs = True
    path, _ = images.save_image(picture(), tmp_path, "", 5, "a cat")
    assert len(Path(path).parent.name) == len("2026-01-31")
    assert Path(path).name == "00000-5.png"


def test_pattern(tmp_path, host):
    host.opts.samples_filename_pattern = "[seed]-[prompt_words]-[width]x[height]-[nonsense]-[steps]"
    path, _ = images.save_image(picture(), tmp_path, "", 5, "Red,  big; cat!")
    assert os.path.basename(path) == "00000-5-Red big cat-16x8-[nonsense]-[steps].png"


def test_existing_files_stay(tmp_path):
    first, _ = images.save_image(picture(), tmp_path, "", forced_filename="same")
    before = Path(first).read_bytes()
    second, _ = images.save_image(picture(colour=(0, 0, 0)), tmp_path, "", forced_filename="same")
    assert Path(first).read_bytes() == before
    assert [os.path.basename(path) for path in (first, second)] == ["same.png", "same-1.png"]


def test_many_writers_never_share_a_name(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: images.save_image(picture(), tmp_path, "", 1, "x")[0], range(32)))
    assert len(set(paths)) == 32
    assert sorted(os.listdir(tmp_path / "data")) == [] if (tmp_path / "data").exists() else True
    assert not list(tmp_path.glob("*.tmp"))


def test_a_failed_write_leaves_nothing(tmp_path):
    class Unwritable(Image.Image):
        def save(self, *_args, **_named):
            raise OSError("disk full")

    broken = Unwritable()
    broken._size = (4, 4)
    with pytest.raises(OSError, match="disk full"):
        images.save_image(broken, tmp_path / "out", "", 1, "x")
    assert list((tmp_path / "out").iterdir()) == []


def test_callbacks_may_change_what_is_saved(tmp_path):
    saved = []

    def change(params):
        params.image = params.image.resize((4, 4))
        params.filename = str(tmp_path / "elsewhere.png")
        params.pnginfo["parameters"] = "changed"
        params.pnginfo["more"] = "kept"

    script_callbacks.on_before_image_saved(change)
    script_callbacks.on_image_saved(lambda params: saved.append(params.filename))
    path, _ = images.save_image(picture(), tmp_path, "", 1, "x", info=TEXT)
    assert saved == [path] == [str(tmp_path / "elsewhere.png")]
    assert Image.open(path).size == (4, 4)
    assert images.read_info_from_image(Image.open(path)) == ("changed", {"more": "kept"})


@pytest.mark.parametrize(
    ("mode", "left_edge"),
    # A picture twice as wide as high, left half red and right half blue, made square.
    [(0, "red"), (1, "red"), (2, "red")],
)
def test_resize_modes(mode, left_edge):
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 32, 32))
    result = images.resize_image(mode, image, 32, 32)
    pixels = np.asarray(result)
    assert result.size == (32, 32)
    assert (pixels[:, 2] == (255, 0, 0)).all()
    assert (pixels[:, -3] == (0, 0, 255)).all()
    columns_mixed = ((pixels[16] != (255, 0, 0)).any(1) & (pixels[16] != (0, 0, 255)).any(1)).sum()
    assert columns_mixed <= 8


def test_resize_and_fill_repeats_the_edges():
    image = Image.new("RGB", (64, 32), "white")
    image.paste("red", (0, 0, 64, 1))
    pixels = np.asarray(images.resize_image(2, image, 64, 96))
    assert (pixels[:32] == (255, 0, 0)).all()
    assert (pixels[40:] == 255).all()


def test_grid():
    grid = images.image_grid([picture(8, 8, (place, 0, 0)) for place in range(5)])
    assert grid.size == (24, 16)
    assert grid.getpixel((17, 1)) == (2, 0, 0)
    assert grid.getpixel((23, 15)) == (255, 255, 255)


def test_transparency_shows_the_background():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 255, 0, 255))
    flat = images.flatten(image, "#0000ff")
    assert [flat.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 255), (0, 255, 0)]


def test_mask_regions():
    mask = Image.new("L", (100, 100))
    mask.paste(255, (40, 10, 60, 20))
    region = masking.get_crop_region_v2(mask, 4)
    assert region == (36, 6, 64, 24)
    assert masking.expand_crop_region(region, 512, 512, 100, 100) == (36, 1, 64, 29)
    assert masking.expand_crop_region((0, 0, 10, 40), 512, 256, 100, 100) == (0, 0, 80, 40)
    assert masking.get_crop_region_v2(Image.new("L", (8, 8))) is None
