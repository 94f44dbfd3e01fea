"""Motion module files load by content, at any width, and everything else is refused by name."""

from __future__ import annotations

import pytest
import torch

from motion.checkpoints.motion_file import inspect_motion_file, load_motion_model
from motion.errors import CheckpointError
from tests.checkpoints.files import fill, narrow_shape, narrow_tensors, write_tensors
from tests.manifests import manifest_shapes

CPU = torch.device("cpu")
FAMILIES = {
    "mm_sd_v15": ("sd15_v1", 24, True),
    "mm_sd_v15_v2": ("sd15_v2", 32, False),
    "v3_sd15_mm": ("sd15_v3", 32, False),
}
OTHERS = {
    "AnimateLCM_sd15_t2v": "an AnimateLCM motion module",
    "hsxl_temporal_layers": "a HotShot-XL motion module",
    "mm_sdxl_hs": "a HotShot-XL motion module",
    "mm_sdxl_v10_beta": "an AnimateDiff motion module for SDXL",
    "v2_lora_ZoomIn": "a motion LoRA",
    "mm_sd15_v2_lora_ZoomIn": "a motion LoRA",
    "v3_sd15_adapter": "a domain adapter",
    "sd15-pruned-core": "a Stable Diffusion 1 checkpoint",
    "svd": "a Stable Video Diffusion checkpoint",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("name", FAMILIES)
def test_family_and_weights(tmp_path, name, suffix, dtype):
    family_id, length, over_frames = FAMILIES[name]
    tensors = narrow_tensors(name, dtype)
    path = write_tensors(tmp_path / f"misleading_sdxl_v9{suffix}", tensors)
    family, config = inspect_motion_file(path)
    assert (family.id, family.base, family.unet_norm_over_frames) == (family_id, "sd15", over_frames)
    assert (family.beta_schedule.kind, family.beta_schedule.end, family.trained_frames) == ("linear", 0.012, 16)
    assert config.down_channels == (32, 64, 128, 128)
    assert config.up_channels == (128, 128, 64, 32)
    assert config.mid_channels == (128 if family_id == "sd15_v2" else None)
    assert (config.max_length, config.num_attention_blocks) == (length, 2)
    assert config.unet_norm_over_frames == over_frames

    model, again = load_motion_model(path, device=CPU, dtype=None)
    assert again == family
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[key], tensors[key]) and state[key].dtype == dtype for key in tensors)


def test_dtype_of_choice(tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", narrow_tensors("v3_sd15_mm"))
    model, _ = load_motion_model(path, device=CPU, dtype=torch.bfloat16)
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}


def test_other_widths_and_lengths(tmp_path):
    widths = {320: 64, 640: 128, 1280: 256, 2560: 512, 5120: 1024, 10240: 2048}
    shapes = manifest_shapes("v3_sd15_mm")
    narrow = {
        key: tuple(64 if size == 32 else widths.get(size, size) for size in shape) for key, shape in shapes.items()
    }
    path = write_tensors(tmp_path / "a.safetensors", fill(narrow, torch.float16))
    family, config = inspect_motion_file(path)
    assert family.id == "sd15_v3"
    assert (config.down_channels, config.max_length) == ((64, 128, 256, 256), 64)


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused_by_name(tmp_path, name):
    shapes = {key: (1,) * len(shape) for key, shape in manifest_shapes(name).items()}
    if name.startswith("mm_sdxl"):
        shapes = {key: (*shape[:2], 1) if key.endswith(".pe") else (1,) for key, shape in manifest_shapes(name).items()}
    if name.startswith("sd15"):
        shapes["model.diffusion_model.input_blocks.0.0.weight"] = (1, 4, 1, 1)
    path = write_tensors(tmp_path / "mm_sd_v15_v2.safetensors", fill(shapes))
    with pytest.raises(CheckpointError, match=f"mm_sd_v15_v2.*This is {OTHERS[name]}.* Choose .*AnimateDiff v1"):
        load_motion_model(path, device=CPU, dtype=None)


def test_unknown_file_shows_its_keys(tmp_path):
    path = write_tensors(tmp_path / "a.pt", fill({"weight": (2,), "bias": (2,)}))
    with pytest.raises(CheckpointError, match=r"no motion module; .* `weight`, `bias`"):
        inspect_motion_file(path)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("down_blocks.1.motion_modules.1.temporal_transformer.proj_in.bias", "lacks 1 tensors: `down_blocks.1"),
        ("up_blocks.2.motion_modules", r"up levels \[0, 1, 3\]"),
    ],
)
def test_incomplete_file(tmp_path, drop, message):
    tensors = {key: value for key, value in narrow_tensors("mm_sd_v15_v2").items() if not key.startswith(drop)}
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(CheckpointError, match=message):
        load_motion_model(path, device=CPU, dtype=None)


def test_width_that_no_norm_divides(tmp_path):
    shapes = {key: narrow_shape(shape, width=40) for key, shape in manifest_shapes("v3_sd15_mm").items()}
    path = write_tensors(tmp_path / "a.safetensors", fill(shapes))
    with pytest.raises(CheckpointError, match="multiples of 32"):
        inspect_motion_file(path)
