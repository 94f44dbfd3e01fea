"""`python -m motion inspect`: text for people, one line of JSON for programs."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from motion.standalone import cli
from tests.checkpoints.files import diffusers_names, narrow_tensors, write_tensors

KEYS = ["kind", "family", "base", "num_frames_trained", "max_frames", "parameters", "dtype", "usable", "reason"]


@pytest.fixture
def module(tmp_path):
    return write_tensors(tmp_path / "mm.safetensors", narrow_tensors("mm_sd_v15", torch.float16))


def inspect(capsys, *arguments):
    status = cli.main(["inspect", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_json(module, capsys):
    status, out, _ = inspect(capsys, module, "--json")
    assert (status, out.count("\n")) == (0, 1)
    found = json.loads(out)
    assert list(found) == KEYS
    parameters = found.pop("parameters")
    assert parameters == sum(v.numel() for k, v in narrow_tensors("mm_sd_v15").items() if not k.endswith(".pe"))
    assert list(found.values()) == ["motion_module", "sd15_v1", "sd15", 16, 24, "float16", True, None]


def test_text(module, capsys):
    status, out, _ = inspect(capsys, module)
    assert status == 0
    for part in (
        "AnimateDiff v1 (SD1.5) [sd15_v1]\n",
        "16 frames\n",
        "32, 64, 128, 128\n",
        "float16\n",
        "usable:       yes",
    ):
        assert part in out
    assert hashlib.sha256(module.read_bytes()).hexdigest() in out
    assert "rank" not in out


def test_refused_file_is_a_result_and_no_error(tmp_path, capsys):
    path = write_tensors(
        tmp_path / "a.ckpt", {"lora_unet_x.lora_down.weight": torch.zeros(4, 8), "\x1b[31mred": torch.zeros(1)}
    )
    status, out, _ = inspect(capsys, path)
    assert status == 0
    assert "rank:         4" in out
    assert "no. This is an ordinary LoRA, which is no motion module. Put it into the web UI's folder models/Lora" in out
    status, out, _ = inspect(capsys, path, "--json")
    assert (status, json.loads(out)["usable"], json.loads(out)["kind"]) == (0, False, "lora")


def test_names_cannot_steer_the_terminal(tmp_path, capsys):
    path = write_tensors(tmp_path / "a.ckpt", {"\x1b[2J": torch.zeros(1)})
    assert "\x1b" not in inspect(capsys, path)[1]


def test_guess_and_family(tmp_path, capsys):
    tensors = narrow_tensors("mm_sd_v15_v2", torch.float16)
    names = diffusers_names(tensors)
    path = write_tensors(tmp_path / "AnimateLCM.safetensors", {names[key]: value for key, value in tensors.items()})
    assert "[animate_lcm] (a guess by the file's name" in inspect(capsys, path)[1]
    out = inspect(capsys, path, "--family", "sd15_v2")[1]
    assert "[sd15_v2]\n" in out
    assert "a guess" not in out
    assert "one of sd15_v1" in inspect(capsys, path, "--family", "none")[1]


def test_missing_file(tmp_path, capsys):
    status, out, err = inspect(capsys, tmp_path / "none.ckpt")
    assert (status, out) == (2, "")
    assert "There is no such file" in err
