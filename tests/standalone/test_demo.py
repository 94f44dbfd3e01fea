from __future__ import annotations

import re
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from motion.checkpoints.inspection import inspect_file
from motion.errors import OutputError
from motion.standalone import cli, demo_command
from motion.standalone.clip import Clip
from motion.standalone.demo_files import SHIPPED, copy_demo_files
from motion.training.shapes_judge import judge_clip, score_text_clip
from motion.video import read_infotext


def test_the_demo_shows_a_red_circle_moving_right(tmp_path, capsys):
    """Nothing is shortened: this is what `install.py demo` runs."""
    data_dir, out_dir = tmp_path / "data", tmp_path / "out"
    assert cli.main(["demo", "--data-dir", str(data_dir), "--out", str(out_dir)]) == 0
    (mp4,) = out_dir.rglob("*.mp4")
    with av.open(str(mp4)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert demo_command.DEFAULT_PROMPT in container.metadata["comment"]
    scores = score_text_clip(frames, demo_command.DEFAULT_PROMPT)
    assert (len(frames), scores.colour, scores.shape, scores.direction) == (16, True, True, True)
    assert judge_clip(frames).shapes[0].velocity[0] > 0

    (gif,) = out_dir.rglob("*.gif")
    assert demo_command.DEFAULT_PROMPT in read_infotext(gif)
    (sheet,) = out_dir.rglob("*.png")
    with Image.open(sheet) as image:
        assert image.width > 4 * 192
    out = capsys.readouterr().out
    for path in (mp4, gif, sheet):
        assert str(path) in out
    assert re.search(r"16 frames in \d+\.\d s, \d+\.\d\d s per step, peak memory \d+ MiB", out)


def test_the_models_are_copied_once_and_mended(tmp_path):
    checkpoint, _ = copy_demo_files(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == len([path for path in SHIPPED.rglob("*") if path.is_file() and path.suffix != ".md"])
    before = [(path, path.stat().st_mtime_ns) for path in files]
    copy_demo_files(tmp_path)
    assert [(path, path.stat().st_mtime_ns) for path in files] == before
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    copy_demo_files(tmp_path)
    assert checkpoint.read_bytes() == (SHIPPED / checkpoint.name).read_bytes()
    assert not list(tmp_path.rglob(".unfinished*"))


@pytest.mark.parametrize(
    ("name", "kind", "family"),
    [
        ("shapes-mm-v2", "motion_module", "sd15_v2"),
        ("shapes-mm-v3", "motion_module", "sd15_v3"),
    ],
)
def test_the_models_are_what_they_claim(name, kind, family):
    report = inspect_file(SHIPPED / f"{name}.safetensors")
    assert (report.kind, report.usable) == (kind, True)
    assert family is None or report.family == family


def test_a_folder_that_cannot_be_written_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["demo", "--data-dir", str(tmp_path), "--out", str(tmp_path / "file")]) == 2
    assert "must be a folder" in capsys.readouterr().err
    assert cli.main(["demo", "--data-dir", str(tmp_path / "file"), "--out", str(tmp_path)]) == 2
    assert "The demo's models must be written to" in capsys.readouterr().err


def test_a_demo_without_a_clip_says_why(tmp_path):
    clip = Clip(np.zeros((1, 8, 8, 3), np.uint8), Fraction(8), "", notes=("No encoder worked.",))
    with pytest.raises(OutputError, match=r"No clip was written to .*\. No encoder worked\."):
        demo_command.report(clip, tmp_path, 1.0, 1.0)
