from __future__ import annotations

import re
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from motion.checkpoints.motion_file import inspect_motion_file
from motion.checkpoints.stable_diffusion import inspect_checkpoint
from motion.errors import OutputError
from motion.standalone import cli, demo, demo_weights
from motion.standalone.clip import Clip
from motion.video import read_infotext
from tests.demo_host import made_files


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return made_files(tmp_path_factory)[0]


def test_the_demo_makes_one_mp4_of_16_frames(data_dir, tmp_path, capsys):
    """Nothing is shortened: this is what `install.py demo` runs."""
    status = cli.main(["demo", "--data-dir", str(data_dir), "--out", str(tmp_path), "blue", "ink"])
    assert status == 0
    (mp4,) = tmp_path.rglob("*.mp4")
    with av.open(str(mp4)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)
        assert "blue ink" in container.metadata["comment"]
    assert frames.shape == (16, 128, 192, 3)
    assert frames.std(axis=(1, 2, 3)).min() > 20, "the frames are flat"
    assert np.mean((frames < 2) | (frames > 253)) < 0.5, "the frames are saturated"
    between_neighbours = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    within_a_frame = np.abs(frames - frames.mean(axis=(1, 2), keepdims=True)).mean()
    assert between_neighbours.min() > 0.3, "nothing moves"
    assert between_neighbours.max() < within_a_frame / 2, "the frames are unrelated"

    (gif,) = tmp_path.rglob("*.gif")
    assert "blue ink" in read_infotext(gif)
    (sheet,) = tmp_path.rglob("*.png")
    with Image.open(sheet) as image:
        assert image.width > 4 * 192
    out = capsys.readouterr().out
    for path in (mp4, gif, sheet):
        assert str(path) in out
    assert re.search(r"16 frames in \d+\.\d s, \d+\.\d\d s per step, peak memory \d+ MiB", out)


def test_the_weights_are_made_once_and_are_what_they_claim(data_dir):
    checkpoint, motion_module = demo.demo_files(data_dir)
    before = [(path, path.stat().st_mtime_ns) for path in (checkpoint, motion_module)]
    assert [(path, path.stat().st_mtime_ns) for path in demo.demo_files(data_dir)] == before
    assert inspect_checkpoint(checkpoint).unet == demo_weights.UNET
    assert inspect_checkpoint(checkpoint).autoencoder == demo_weights.AUTOENCODER
    assert inspect_checkpoint(checkpoint).text_encoder == demo_weights.TEXT_ENCODER
    family, config = inspect_motion_file(motion_module)
    assert (family.id, config) == ("sd15_v2", demo_weights.MOTION_MODULE)
    assert not list(data_dir.rglob(".unfinished*"))


def test_the_weights_are_seeded():
    first, second = demo_weights.motion_module_tensors(), demo_weights.motion_module_tensors()
    assert first.keys() == second.keys()
    assert all(bool((first[key] == second[key]).all()) for key in first)


def test_a_folder_that_cannot_be_written_is_said(data_dir, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["demo", "--data-dir", str(data_dir), "--out", str(tmp_path / "file")]) == 2
    assert "must be a folder" in capsys.readouterr().err
    assert cli.main(["demo", "--data-dir", str(tmp_path / "file"), "--out", str(tmp_path)]) == 2
    assert "The demo's weights must be written to" in capsys.readouterr().err


def test_a_demo_without_a_clip_says_why(tmp_path):
    clip = Clip(np.zeros((1, 8, 8, 3), np.uint8), Fraction(8), "", notes=("No encoder worked.",))
    with pytest.raises(OutputError, match=r"No clip was written to .*\. No encoder worked\."):
        demo.report(clip, tmp_path, 1.0, 1.0)
