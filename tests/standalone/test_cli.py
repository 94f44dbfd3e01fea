from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from motion.errors import MotionError, OutputError
from motion.standalone import cli
from tests.demo_host import made_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return made_files(tmp_path_factory)


def render(files, *flags):
    _, checkpoint, motion_module = files
    required = ["--checkpoint", str(checkpoint), "--motion-module", str(motion_module)]
    small = ["--frames", "3", "--steps", "2", "--width", "64", "--height", "64", "--precision", "fp32"]
    return cli.main(["render", *required, *small, *flags])


def test_render_writes_a_clip_and_prints_its_path(files, tmp_path, capsys):
    assert render(files, "--out", str(tmp_path), "--format", "MP4+GIF", "--fps", "24000/1001", "--seed", "9") == 0
    out, err = capsys.readouterr()
    printed = out.split()
    assert sorted(path.rpartition(".")[2] for path in printed) == ["gif", "mp4"]
    assert sorted(map(str, tmp_path.iterdir())) == sorted(printed)
    assert "2/2" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--frames", "0"], "`num_frames` must be a whole number from 1 to 4096, got 0"),
        (["--frames", "many"], "`num_frames` must be a whole number"),
        (["--fps", "0"], "`fps` must be"),
        (["--width", "65"], "`width` must be a multiple of 8"),
        (["--sampler", "Nothing"], "Sampler 'Nothing' is unknown"),
        (["--format", "AVI"], "`formats` must be"),
        (["--init-image", "nowhere.png"], "`init_image` must be a picture"),
        (["--motion-module", "nowhere.safetensors"], "nowhere.safetensors: the file does not exist"),
        (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors: the file does not exist"),
    ],
)
def test_bad_input_is_one_line_and_status_2(files, tmp_path, capsys, flags, message):
    assert render(files, "--out", str(tmp_path / "out"), *flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_an_unknown_flag_is_status_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["render", "--frame", "3"])
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MotionError("bad"), 2),
        (OutputError("disk full", status_code=507), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_statuses(monkeypatch, capsys, error, status):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["demo"]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_taken_port_is_said(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "--port", port, "--data-dir", str(tmp_path)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    code = "import sys, motion.standalone.cli as cli; cli.build_parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
