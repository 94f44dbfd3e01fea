"""`python -m motion train`: whole runs on the smallest networks, as a user starts, stops, kills and resumes them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from motion.checkpoints.motion_lora_file import load_motion_lora
from motion.models.motion_module import MotionModuleConfig
from motion.standalone import cli
from motion.training.run_progress import FAILED, FINISHED, STOPPED, read_progress
from tests.training import tiny_lora

ROOT = Path(__file__).resolve().parents[2]
STEPS = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_lora.write_all(tmp_path_factory.mktemp("lora"))


BACKGROUND = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if os.name == "posix" else None
"""What a shell's background job ignores, what it starts ignores too."""


def arguments(files, out, **flags):
    """Command line of a small run; a flag of None is left out, one of "" has no value."""
    videos, module, checkpoint = files
    chosen = {
        "videos": videos,
        "module": module,
        "checkpoint": checkpoint,
        "out": out,
        "size": 64,
        "frames": 4,
        "rank": 2,
        "steps": STEPS,
        "sample_every": 0,
        "save_every": 1,
        "precision": "fp32",
        **flags,
    }
    given = {name.replace("_", "-"): value for name, value in chosen.items() if value is not None}
    return [
        "train",
        "motion-lora",
        *(f"--{name}" if value == "" else f"--{name}={value}" for name, value in given.items()),
    ]


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """An uninterrupted run with everything in it."""
    out, loras = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("loras")
    assert cli.main(arguments(files, out, name="right", sample_every=STEPS, lora_dir=loras)) == 0
    return out, loras


def weights(out):
    """All that the newest state holds of weights and optimiser."""
    return load_file(max(out.glob("state-*.safetensors")))


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_a_run_leaves_a_lora_in_the_original_spelling(finished):
    out, loras = finished
    path = loras / "right.safetensors"
    with safe_open(path, framework="pt") as file:
        keys, card = set(file.keys()), file.metadata()
    prefix = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor"
    assert {f"{prefix}.to_out_lora.down.weight", f"{prefix}.to_q_lora.up.weight"} <= keys
    assert card["rank"] == "2"
    assert card["motion_module"] == "box-mm-v3.safetensors (AnimateDiff v3 (SD1.5))"
    assert card["clips"] == "2 from 2 videos, 4 frames of 64x64 pixels"
    lora = load_motion_lora(path)
    assert (lora.rank, len(lora.deltas)) == (2, 12 * 2 * 4)
    assert any(delta.up.abs().max() > 0 for delta in lora.deltas.values()), "nothing was learned"
    assert path.read_bytes() == (out / "right.safetensors").read_bytes()
    assert "- rank: 2\n" in (out / "right.md").read_text(encoding="utf-8")


def test_a_run_leaves_pictures_and_progress(finished):
    out, loras = finished
    assert {path.name for path in out.iterdir()} >= {"loss.png", "latents.safetensors", "samples", "progress.json"}
    assert [path.name for path in (out / "samples").iterdir()] == [f"step-{STEPS:06d}.png"]
    progress = read_progress(out)
    assert (progress.state, progress.step, progress.steps) == (FINISHED, STEPS, STEPS)
    assert str(loras / "right.safetensors") in progress.text


def test_a_killed_run_is_resumed_to_the_weights_of_an_uninterrupted_one(files, finished, tmp_path):
    command = [sys.executable, "-m", "motion", *arguments(files, tmp_path, name="right", steps=STEPS, sample_every=0)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("state-*.safetensors")):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    at_kill = max(tmp_path.glob("state-*.safetensors")).name
    assert cli.main(arguments(files, tmp_path, name="right", sample_every=STEPS)) == 0
    assert at_kill < f"state-{STEPS:07d}.safetensors"
    assert_same_weights(tmp_path, finished[0])


def test_gradient_checkpointing_changes_nothing_but_memory(files, finished, tmp_path):
    assert cli.main(arguments(files, tmp_path, name="right", no_gradient_checkpointing="")) == 0
    first, second = weights(tmp_path), weights(finished[0])
    assert all(torch.allclose(value, second[key], rtol=1e-4, atol=1e-6) for key, value in first.items())


def test_check_reports_and_writes_nothing(files, tmp_path, capsys):
    assert cli.main(arguments(files, tmp_path / "run", check="", steps=100, sample_every=50)) == 0
    out = capsys.readouterr().out
    assert "2 of 2 videos" in out
    assert re.search(r"Memory: about \d+\.\d\d GiB \(frozen networks .*; without gradient checkpointing ", out)
    assert re.search(r"Time: about .* s a step, measured, times 100, and .* for sample sheets\)\.", out)
    assert not (tmp_path / "run").exists()


def test_check_reports_all_problems_and_fails(files, tmp_path, capsys):
    tiny_lora.write_video(tmp_path / "good.mp4")
    tiny_lora.write_video(tmp_path / "mute.mp4", caption=None)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = (tmp_path, *files[1:])
    assert cli.main(arguments(broken, tmp_path / "run", check="")) == 2
    said = capsys.readouterr()
    assert "1 of 3 videos" in said.out
    assert "Problem: mute.mp4: A video must have a caption in mute.txt, which is not there." in said.out
    assert "Problem: broken.mp4: A video must be readable from start to end" in said.out
    (error,) = (line for line in said.err.splitlines() if line.startswith("error: "))
    assert "2 can't be used: broken.mp4" in error
    assert cli.main(arguments(broken, tmp_path / "run", check="", skip_bad="", default_caption="a box")) == 0
    assert "2 of 3 videos" in capsys.readouterr().out


def test_the_end_of_input_stops_a_run_that_is_resumed(files, tmp_path):
    """As when the web UI that has started it goes away, which a shell had put into the background."""
    command = [sys.executable, "-m", "motion", *arguments(files, tmp_path, steps=500, stop_at_end_of_input="")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, cwd=ROOT, **pipes, preexec_fn=BACKGROUND)
    while not list(tmp_path.glob("state-*.safetensors")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.05)
    errors = process.communicate(timeout=120)[1].decode()  # closes its input
    assert process.returncode == 130
    assert re.search(r"Stopped after step \d+ of 500; the state is saved\. Run the same command again to", errors)
    assert read_progress(tmp_path).state == STOPPED
    assert int(max(tmp_path.glob("state-*.safetensors")).name[6:13]) == read_progress(tmp_path).step


def test_other_settings_don_t_resume_a_run(files, finished, capsys):
    assert cli.main(arguments(files, finished[0], name="right", rank=3)) == 2
    assert "holds a run with `rank` 2, this one has 3" in capsys.readouterr().err
    assert read_progress(finished[0]).state == FAILED


REFUSALS = [
    ({"rank": 0}, "`rank` must be from 1 to 512, got 0"),
    ({"batch_size": 65}, "`batch_size` must be from 1 to 64"),
    ({"steps": 0}, "`steps` must be a whole number from 1"),
    ({"learning_rate": 7}, "`learning_rate` must be a number from 1e-08 to 1, got 7"),
    ({"size": "64*64"}, "`size` must be one number of pixels or two, such as 256 or 384x256, got '64*64'"),
    ({"size": 65}, "`size` must be a multiple of 64"),
    ({"name": "a/b"}, "`name` must be made of letters"),
    ({"frames": 40}, "`frames` must be at most 32, as box-mm-v3.safetensors knows no more places, got 40"),
    ({"videos": "nowhere"}, "must be in a folder, got"),
    ({"module": "nowhere.safetensors"}, "nowhere.safetensors: There is no such file"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSALS, ids=[next(iter(flags)) for flags, _ in REFUSALS])
def test_what_can_t_work_is_refused_in_one_line(files, tmp_path, capsys, flags, message):
    assert cli.main(arguments(files, tmp_path / "run", **flags)) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert message in error


def test_files_that_don_t_go_together_are_refused(files, tmp_path, capsys):
    videos, module, checkpoint = files
    assert cli.main(arguments((videos, checkpoint, checkpoint), tmp_path)) == 2
    assert "Choose a motion module of one of these families" in capsys.readouterr().err
    assert cli.main(arguments((videos, module, module), tmp_path)) == 2
    assert "can't be used as a checkpoint here" in capsys.readouterr().err
    wide = MotionModuleConfig((64,) * 4, (64,) * 4, None, 32, down_modules=1, up_modules=2)
    other = tiny_lora.write_module(tmp_path / "wide-mm-v3.safetensors", wide)
    assert cli.main(arguments((videos, other, checkpoint), tmp_path)) == 2
    assert "the UNet has 32 channels there, the motion module 64" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_folder_that_can_t_take_the_lora_is_refused_before_the_work(files, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert cli.main(arguments(files, tmp_path / "run", lora_dir=tmp_path / "file")) == 2
    assert "must be a folder" in capsys.readouterr().err
    assert not (tmp_path / "run" / "latents.safetensors").exists()


def test_a_long_caption_is_noted(files, tmp_path, capsys):
    tiny_lora.write_video(tmp_path / "long.mp4", caption="red box " * 50)
    assert cli.main(arguments((tmp_path, *files[1:]), tmp_path / "run", steps=1)) == 0
    assert "A caption of 100 tokens is longer than the 75 that the text encoder reads" in capsys.readouterr().err


def test_stages_of_the_shapes_models_are_named(tmp_path, capsys):
    assert cli.main(["train", "shapes", "--out", str(tmp_path), "--stage", "nonsense"]) == 2
    assert "`stage` must be all or some of autoencoder, " in capsys.readouterr().err
    assert cli.main(["train", "shapes", "--out", str(tmp_path), "--stage", "pan-left"]) == 2
    assert "Run that stage first." in capsys.readouterr().err


def test_a_stage_of_the_shapes_models_is_stopped_and_resumed(tmp_path):
    """Its first steps, as users see them; what comes of whole stages, the shipped weights show."""
    command = [sys.executable, "-m", "motion", "train", "shapes", "--out", str(tmp_path), "--stage", "autoencoder"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    os.set_blocking(process.stderr.fileno(), False)
    said = b""
    while b"1/" not in said:
        assert process.poll() is None, said.decode()
        said += process.stderr.read() or b""
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    os.set_blocking(process.stderr.fileno(), True)
    errors = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130
    assert "the state is saved. Run the same command again to resume." in errors
    assert list((tmp_path / "autoencoder").glob("state-*.safetensors"))
