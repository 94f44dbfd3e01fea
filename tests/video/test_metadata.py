from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from motion.errors import OutputError
from motion.video import read_infotext, save_clip

FORMATS = ("MP4", "GIF", "PNG")
INFOTEXT = """a fox "in" snow, 狐狸 🦊, (word:1.2) <lora:x:1> é\\n; # = 'quoted'
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M, CFG scale: 7, Seed: 1, Motion: True, Motion fps: 24000/1001"""


def round_trips(folder, text):
    clip = save_clip([np.zeros((2, 2, 3), np.uint8)], folder, stem="s", fps=Fraction(8), formats=FORMATS, infotext=text)
    return {read_infotext(clip.files["MP4"]), read_infotext(clip.files["GIF"]), read_infotext(clip.frames[0])}


@pytest.mark.parametrize(
    "text",
    [
        "",
        INFOTEXT,
        INFOTEXT * 40,
        "x" * 255,
        "é" * 255,
        "狐" * 200_000,
        "two\r\nlines\n\n",
        "café",
        " ",
        "\ufeffbom\x7f\x85",
    ],
    ids=["none", "usual", "long", "255", "two-byte", "huge", "lines", "latin", "space", "odd"],
)
def test_infotext_comes_back(tmp_path, text):
    assert round_trips(tmp_path, text) == {text}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=600))
def test_any_text_comes_back(tmp_path, text):
    assert round_trips(tmp_path, text) == {text}


def test_what_no_file_can_hold_is_replaced_and_logged(tmp_path, caplog):
    assert round_trips(tmp_path, "a\0b\ud800c") == {"a\ufffdb\ufffdc"}
    assert "2 characters" in caplog.text


def test_web_uis_find_it(tmp_path):
    """A1111 reads `parameters` from PNG text and the comment of a GIF as UTF-8."""
    clip = save_clip(
        [np.zeros((2, 2, 3), np.uint8)], tmp_path, stem="s", fps=Fraction(8), formats=FORMATS, infotext=INFOTEXT
    )
    with Image.open(clip.frames[0]) as image:
        assert image.info["parameters"] == INFOTEXT
    with Image.open(clip.files["GIF"]) as image:
        assert image.info["comment"].decode() == INFOTEXT


def test_latin_text_is_a_plain_text_chunk(tmp_path):
    clip = save_clip(
        [np.zeros((2, 2), np.uint8)], tmp_path, stem="s", fps=Fraction(8), formats=["PNG"], infotext="a\nb"
    )
    assert b"tEXtparameters\0a\nb" in clip.frames[0].read_bytes()


def test_the_name_does_not_matter(tmp_path):
    clip = save_clip(
        [np.zeros((2, 2), np.uint8)], tmp_path, stem="s", fps=Fraction(8), formats=["GIF"], infotext="text"
    )
    assert read_infotext(clip.files["GIF"].rename(tmp_path / "clip.mp4")) == "text"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\0\0\0\x18ftypisom\0\0"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"file must be .*Choose another file"):
        read_infotext(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(OutputError, match="must be a readable MP4"):
            read_infotext(path)
