from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from motion.errors import MotionError, OutputError, SettingsError
from motion.standalone import cli, server
from motion.standalone.render_flags import settings_from
from motion.standalone.render_settings import RenderSettings
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


def test_addresses_of_ipv6_are_checked_as_such(capsys):
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("needs IPv6")
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"got \[::1\]:{port}: .*in use"):
            server.check_address("::1", port)
    server.check_address("::1", port)


def test_every_setting_of_a_render_has_a_flag():
    flags = ["--motion-loras", "<lora:pan:-0.5@0-1>", "--domain-adapter", "look", "--domain-adapter-strength", "0.5"]
    flags += ["--beta-schedule", "linear", "--seed-behaviour", "same for all frames", "--motion-scale", "0.5"]
    flags += ["--module-family", "sd15_v1", "--hires-scale", "1.5", "--hires-upscaler", "Lanczos", "--hires-steps", "3"]
    flags += ["--denoising-strength", "0.6", "--clip-skip", "2", "--loop-count", "4"]
    required = ["render", "--checkpoint", "c", "--motion-module", "m"]
    settings = settings_from(cli.build_parser().parse_args([*required, *flags]))
    given = [settings.hires_scale, settings.hires_upscaler, settings.hires_steps, settings.denoising_strength]
    assert [*given, settings.clip_skip] == [1.5, "Lanczos", 3, 0.6, 2]
    clip = settings.clip
    assert (clip.motion_loras, clip.domain_adapter, clip.domain_adapter_strength) == (
        "<lora:pan:-0.5@0-1>",
        "look",
        0.5,
    )
    assert (clip.beta_schedule, clip.seed_behaviour, clip.motion_scale) == ("linear", "same for all frames", 0.5)
    assert (clip.module_family, clip.loop_count, clip.enabled) == ("sd15_v1", 4, True)


def test_flags_that_are_not_given_are_the_settings_defaults():
    arguments = cli.build_parser().parse_args(["render", "--checkpoint", "c", "--motion-module", "m"])
    assert settings_from(arguments) == RenderSettings(motion={"formats": "MP4"})


def test_the_current_folder_is_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = cli.build_parser().parse_args(["render", "--checkpoint", "c", "--motion-module", "m"])
    assert arguments.data_dir.absolute() == tmp_path


def test_help_does_not_wait_for_torch():
    code = "import sys, motion.standalone.cli as cli; cli.build_parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
