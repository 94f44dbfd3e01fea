"""The report on a file: what it is, or why it can't be used."""

from __future__ import annotations

import hashlib
import math
import re

import pytest
import torch

from motion.checkpoints.inspection import inspect_file, sha256_of
from motion.errors import CheckpointError
from tests.checkpoints.files import diffusers_names, fill, narrow_tensors, write_tensors
from tests.checkpoints.test_file_formats import HAND_MADE, HAND_MADE_FORMATS
from tests.manifests import manifest_shapes

# manifest: family, base, trained frames, longest clip, learned numbers at full width (none for others)
MOTION = {
    "mm_sd_v14": ("sd15_v1", "sd15", 16, 24),
    "mm_sd_v15": ("sd15_v1", "sd15", 16, 24),
    "mm_sd_v15_v2": ("sd15_v2", "sd15", 16, 32),
    "v3_sd15_mm": ("sd15_v3", "sd15", 16, 32),
    "AnimateLCM_sd15_t2v": ("animate_lcm", "sd15", 16, 64),
    "mm_sdxl_v10_beta": ("sdxl_beta", "sdxl", 16, 32),
    "mm_sdxl_hs": ("hotshot_xl", "sdxl", 8, 24),
    "hsxl_temporal_layers": ("hotshot_xl", "sdxl", 8, 24),
}
OTHERS = {
    "v2_lora_ZoomIn": ("motion_lora", "sd15", True, "None"),
    "mm_sd15_v2_lora_ZoomIn": ("motion_lora", "sd15", True, "None"),
    "v3_sd15_adapter": ("domain_adapter", "sd15", True, "None"),
    "sd15-pruned-core": (
        "checkpoint",
        "sd15",
        False,
        "This is a Stable Diffusion 1 checkpoint.*models/Stable-diffusion",
    ),
    "sd_xl_base_1.0": ("checkpoint", "sdxl", False, "This is an SDXL checkpoint.*models/Stable-diffusion"),
    "svd": ("svd", None, False, "It lacks|a UNet of a known layout|is damaged|channels"),
}
VARIANTS = {
    "sparsectrl": ("sparse_control", "a SparseCtrl encoder, which is not yet supported"),
    "pia": ("motion_module", "a PIA model, which is not yet supported"),
    "camera_control": ("motion_module", "a CameraCtrl or MotionCtrl model, which is not yet supported"),
    "animate_lcm_i2v": ("motion_module", "an AnimateLCM-I2V model, which is not yet supported"),
    "lora": ("lora", "an ordinary LoRA, .* models/Lora"),
    "controlnet": ("unknown", "a ControlNet, .* ControlNet extension"),
    "motion_variant": ("motion_module", "a motion module with parts of an unknown kind, which is not yet supported"),
}


@pytest.mark.parametrize("name", MOTION)
def test_motion_module(tmp_path, name):
    family, base, trained, longest = MOTION[name]
    tensors = narrow_tensors(name, torch.float16)
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    report = inspect_file(path)
    assert (report.kind, report.family, report.family_is_a_guess, report.base) == ("motion_module", family, False, base)
    assert (report.num_frames_trained, report.max_frames, report.dtype) == (trained, longest, "float16")
    assert (report.usable, report.reason, report.lora_rank) == (True, None, None)
    assert report.widths == ((32, 64, 128, 128) if base == "sd15" else (32, 64, 128))
    learned = (tensor for key, tensor in tensors.items() if "pos_encoder" not in key)
    assert report.parameters == sum(tensor.numel() for tensor in learned)
    assert report.size_bytes == path.stat().st_size


@pytest.mark.parametrize("name", OTHERS)
def test_other_public_files(tmp_path, name):
    kind, base, usable, reason = OTHERS[name]
    shapes = {key: (2,) * len(shape) for key, shape in manifest_shapes(name).items()}
    if name.startswith("sd"):
        shapes["model.diffusion_model.input_blocks.0.0.weight"] = (2, 4, 1, 1)
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    report = inspect_file(write_tensors(tmp_path / "a.safetensors", tensors))
    assert (report.kind, report.base, report.usable, report.family) == (kind, base, usable, None)
    assert report.lora_rank == (2 if usable else None)
    learned = [shape for key, shape in shapes.items() if not key.endswith("position_ids")]
    assert report.parameters == sum(math.prod(shape) for shape in learned)
    assert re.search(reason, str(report.reason))


@pytest.mark.parametrize("name", [name for name in HAND_MADE if HAND_MADE_FORMATS.get(name, name) in VARIANTS])
def test_known_but_not_supported(tmp_path, name):
    kind, reason = VARIANTS[HAND_MADE_FORMATS.get(name, name)]
    shapes = {key: shape if "conv_in" in key else (1,) for key, shape in HAND_MADE[name].items()}
    report = inspect_file(write_tensors(tmp_path / "a.safetensors", fill(shapes, torch.float16)))
    assert (report.kind, report.usable) == (kind, False)
    assert re.search(f"This is {reason}", report.reason)


def test_camera_control_as_it_is_published(tmp_path):
    shapes = HAND_MADE["cameractrl"]
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key in shapes:
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = torch.zeros(2)
    torch.save({"epoch": 1, "global_step": 10, **parts}, tmp_path / "CameraCtrl.ckpt")
    assert "CameraCtrl" in inspect_file(tmp_path / "CameraCtrl.ckpt").reason


def test_guess_and_override(tmp_path):
    tensors = narrow_tensors("mm_sd_v15_v2")
    names = diffusers_names(tensors)
    path = write_tensors(tmp_path / "AnimateLCM.ckpt", {names[key]: value for key, value in tensors.items()})
    guess, told = inspect_file(path), inspect_file(path, family="sd15_v2")
    assert (guess.family, guess.family_is_a_guess) == ("animate_lcm", True)
    assert (told.family, told.family_is_a_guess) == ("sd15_v2", False)


def test_incomplete_motion_module_is_still_one(tmp_path):
    tensors = narrow_tensors("v3_sd15_mm")
    key = "up_blocks.1.motion_modules.2.temporal_transformer.proj_in.weight"
    del tensors[key]
    report = inspect_file(write_tensors(tmp_path / "a.ckpt", tensors))
    assert (report.kind, report.family, report.usable) == ("motion_module", None, False)
    assert f"lacks 1 tensors: `{key}`" in report.reason


def test_unreadable_files(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"<html>")
    report = inspect_file(tmp_path / "a.ckpt")
    assert (report.kind, report.usable, report.parameters) == ("unknown", False, None)
    assert "web page" in report.reason
    with pytest.raises(CheckpointError, match="no such file"):
        inspect_file(tmp_path / "none.ckpt")
    assert "folder" in inspect_file(tmp_path).reason


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    with pytest.raises(CheckpointError, match="can't be read"):
        sha256_of(tmp_path)
