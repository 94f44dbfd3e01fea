"""A motion module file that lies or lacks something is refused by the name that the file gives to the tensor."""

from __future__ import annotations

import math

import pytest
import torch

from motion.checkpoints.motion_file import inspect_motion_file, load_motion_model
from motion.errors import CheckpointError
from tests.checkpoints.files import diffusers_names, fill, narrow_shape, narrow_tensors, write_tensors
from tests.manifests import manifest_shapes

CPU = torch.device("cpu")
SITE = "down_blocks.1.motion_modules.1.temporal_transformer."
ATTENTION = SITE + "transformer_blocks.0.attention_blocks.1."


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (SITE + "proj_in.bias", f"lacks 1 tensors: `{SITE}proj_in.bias`"),
        (ATTENTION + "pos_encoder.pe", f"lacks 1 tensors: `{ATTENTION}pos_encoder.pe`"),
        (ATTENTION, f"lacks 6 tensors: `{ATTENTION}.* and 3 more"),
        ("down_blocks.1.motion_modules.1", "lacks 28 tensors: `down_blocks.1.motion_modules.1"),
        ("up_blocks.2.motion_modules", r"up levels \[0, 1, 3\]"),
        ("up_blocks.3", r"up levels \[0, 1, 2\]"),
    ],
)
def test_incomplete_file(tmp_path, drop, message):
    tensors = {key: value for key, value in narrow_tensors("mm_sd_v15_v2").items() if not key.startswith(drop)}
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(CheckpointError, match=message):
        inspect_motion_file(path)


def test_levels_of_no_known_unet(tmp_path):
    tensors = {key: value for key, value in narrow_tensors("mm_sd_v15").items() if "_blocks.3" not in key}
    tensors |= {key: value for key, value in narrow_tensors("mm_sd_v15_v2").items() if key.startswith("mid_block")}
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(
        CheckpointError, match=r"\[0, 1, 2\] .* with a middle block don't make the UNet of SD1.5 or SDXL"
    ):
        inspect_motion_file(path)


WRONG_SHAPES = [
    ("norm.weight", (65,)),
    ("norm.bias", (1, 64)),
    ("proj_in.weight", (64, 32)),
    ("transformer_blocks.0.attention_blocks.0.to_q.weight", (128, 64)),
    ("transformer_blocks.0.attention_blocks.1.to_out.0.bias", ()),
    ("transformer_blocks.0.attention_blocks.1.pos_encoder.pe", (1, 31, 64)),
    ("transformer_blocks.0.ff.net.0.proj.weight", (256, 64)),
]


@pytest.mark.parametrize("spelling", ["animatediff", "diffusers"])
@pytest.mark.parametrize(("part", "shape"), WRONG_SHAPES)
def test_wrong_shape(tmp_path, part, shape, spelling):
    tensors = narrow_tensors("v3_sd15_mm") | {SITE + part: torch.ones(shape)}
    names = diffusers_names(tensors) if spelling == "diffusers" else {key: key for key in tensors}
    path = write_tensors(tmp_path / "a.ckpt", {names[key]: value for key, value in tensors.items()})
    got = ", ".join(map(str, shape))
    with pytest.raises(CheckpointError, match=rf"`{names[SITE + part]}` must have shape \[.*\], got \[{got}\]"):
        inspect_motion_file(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_value_that_is_no_number(tmp_path, value, dtype):
    if dtype is torch.float8_e4m3fn and math.isinf(value):
        pytest.skip("this type has no infinity")
    tensors = narrow_tensors("v3_sd15_mm", dtype)
    key = SITE + "proj_out.weight"
    tensors[key] = tensors[key].clone()
    tensors[key][3, 5] = value
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(CheckpointError, match=f"`{SITE}proj_out.weight` holds a NaN or an infinity"):
        load_motion_model(path, device=CPU, dtype=torch.float32)


def test_whole_numbers_and_more_numbers_than_the_file_holds(tmp_path):
    good = narrow_tensors("v3_sd15_mm")
    key = SITE + "proj_in.weight"
    path = write_tensors(tmp_path / "a.ckpt", good | {key: torch.zeros(64, 64, dtype=torch.int64)})
    with pytest.raises(CheckpointError, match=f"`{key}` must hold floating-point numbers, got torch.int64"):
        load_motion_model(path, device=CPU, dtype=None)
    path = write_tensors(tmp_path / "b.ckpt", good | {key: torch.zeros(1).expand(64, 64)})
    with pytest.raises(CheckpointError, match=f"`{key}` claims more numbers than the file holds"):
        load_motion_model(path, device=CPU, dtype=None)


def test_width_that_no_norm_divides(tmp_path):
    shapes = {key: narrow_shape(shape, width=40) for key, shape in manifest_shapes("v3_sd15_mm").items()}
    path = write_tensors(tmp_path / "a.safetensors", fill(shapes))
    with pytest.raises(CheckpointError, match="multiples of 32"):
        inspect_motion_file(path)
