"""`python -m motion svd` on small weights."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from motion.standalone import cli
from motion.standalone.infotext_parser import parse_generation_parameters
from motion.video import read_infotext
from tests.svd_networks import write_small_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_small_file(tmp_path_factory.mktemp("svd") / "small_xt.safetensors")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "boat.png"
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(path)
    return path


def svd(weights, picture, out, *flags):
    small = ["--width", "48", "--height", "32", "--frames", "3", "--steps", "2", "--precision", "fp32"]
    return cli.main(["svd", "--weights", str(weights), "--image", str(picture), "--out", str(out), *small, *flags])


def test_a_picture_becomes_a_clip_in_each_format(weights, picture, tmp_path, capsys):
    out = tmp_path / "clips"
    flags = ["--format", "MP4+GIF+PNG", "--seed", "9", "--fps", "12", "--sampler", "dpmpp_2m", "--guidance", "triangle"]
    assert svd(weights, picture, out, *flags) == 0
    printed, err = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["00000-9", "00000-9.gif", "00000-9.mp4"]
    assert len(printed.split()) == 3
    assert "2/2" in err
    frames = sorted((out / "00000-9").iterdir())
    assert [Image.open(frame).size for frame in frames] == [(48, 32)] * 3
    texts = {read_infotext(path) for path in [*frames, out / "00000-9.gif", out / "00000-9.mp4"]}
    (text,) = texts
    found = parse_generation_parameters(text, skip_fields=[])
    expected = {"Steps": "2", "Sampler": "dpmpp_2m", "Seed": "9", "SVD weights": "small_xt", "SVD fps": "12"}
    assert {name: found[name] for name in expected} == expected
    assert (found["SVD guidance"], found["SVD num frames"], found["Size-1"]) == ("triangle", "3", "48")


def test_pictures_and_videos_are_numbered(weights, picture, tmp_path, capsys):
    out = tmp_path / "clips"
    flags = ["--image", str(picture), str(picture), "--num-videos-per-picture", "2", "--seed", "4", "--format", "GIF"]
    assert svd(weights, picture, out, *flags) == 0
    files = sorted(out.iterdir())
    assert [path.name for path in files] == [f"0000{number}-4.gif" for number in range(4)]
    assert read_infotext(files[2]).endswith("SVD clip: 3 of 4")
    assert "8/8" in capsys.readouterr().err


def test_a_drawn_seed_is_written_down(weights, picture, tmp_path, capsys):
    assert svd(weights, picture, tmp_path / "clips", "--frames", "1", "--steps", "1", "--format", "GIF") == 0
    (file,) = (tmp_path / "clips").iterdir()
    assert parse_generation_parameters(read_infotext(file), skip_fields=[])["Seed"] == file.stem.partition("-")[2]


def one_error(capsys):
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    return line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--frames", "0"], "`num_frames` must be a whole number from 1 to 1024, got 0"),
        (["--width", "50"], "`width` must be a multiple of 4, got 50. Take 48 or 52."),
        (["--motion-bucket-id", "256"], "`motion_bucket_id` must be a whole number from 0 to 255, got 256"),
        (["--sampler", "heun"], "`sampler` must be one of euler, euler_a, dpmpp_2m, got 'heun'"),
        (["--format", "AVI"], "Formats must be some of MP4, GIF, PNG"),
        (["--image", "nowhere.png"], "`image` must be a picture, got nowhere.png"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: "),
    ],
)
def test_bad_input_is_one_line_and_status_2(weights, picture, tmp_path, capsys, flags, message):
    assert svd(weights, picture, tmp_path / "out", *flags) == 2
    assert message in one_error(capsys)
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["some.weight"], "This is a file of an unknown kind, with tensors such as `some.weight`, not Stable Video"),
        (
            [
                "model.diffusion_model.input_blocks.0.0.weight",
                "first_stage_model.encoder.conv_in.weight",
                "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
            ],
            "not Stable Video Diffusion. Choose svd, svd_xt",
        ),
    ],
)
def test_weights_of_another_kind(picture, tmp_path, capsys, keys, message):
    other = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(4, 4) for key in keys}, other)
    assert svd(other, picture, tmp_path / "out") == 2
    assert message in one_error(capsys)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("clear.png", Image.new("RGBA", (40, 40), (200, 0, 0, 100))),
        ("wide.png", Image.new("I;16", (40, 40), 30000)),
        ("print.jpg", Image.new("CMYK", (40, 40), (0, 200, 200, 0))),
    ],
)
def test_pictures_of_other_kinds_are_converted(weights, tmp_path, capsys, name, made):
    made.save(tmp_path / name)
    assert svd(weights, tmp_path / name, tmp_path / "out", "--frames", "1", "--steps", "1", "--format", "GIF") == 0


def test_a_tiny_picture_and_one_that_is_none(weights, tmp_path, capsys):
    Image.new("RGB", (8, 40)).save(tmp_path / "tiny.png")
    assert svd(weights, tmp_path / "tiny.png", tmp_path / "out") == 2
    assert "`image` must have sides of at least 16 pixels, got 8×40" in one_error(capsys)
    (tmp_path / "text.png").write_text("no picture")
    assert svd(weights, tmp_path / "text.png", tmp_path / "out") == 2
    assert "`image` must be a picture" in one_error(capsys)


def test_help_needs_no_torch():
    code = "import sys\nfrom motion.standalone import cli\ncli.build_parser()\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
