"""A motion LoRA's base is told by its layers, in every spelling; where they can't tell, the report says why."""

from __future__ import annotations

import re

import pytest
import torch

from motion.checkpoints.file_formats import recognise
from motion.checkpoints.inspection import describe, inspect_file
from motion.checkpoints.low_rank import layer_shapes
from motion.checkpoints.motion_lora_base import UnknownBaseError, read_base
from motion.checkpoints.motion_lora_file import load_motion_lora, motion_lora_layers
from tests.checkpoints.files import fill, narrow_tensors, write_tensors
from tests.checkpoints.test_motion_lora_file import DOWN, PAIR, SPELLINGS, UP
from tests.manifests import manifest_names, manifest_shapes

MANIFESTS = [name for name in manifest_names() if recognise(manifest_shapes(name)).id == "motion_lora"]
BLOCK = "temporal_transformer.transformer_blocks.0"
ALIKE = "It changes only layers that SD1.5 and SDXL have alike."
NEITHER = "Its layers are those of neither SD1.5 nor SDXL."


def lora_layers(manifest):
    """Attention layers of a motion module, or all of a motion LoRA, with the shapes that its manifest gives them."""
    shapes = manifest_shapes(manifest)
    if manifest in MANIFESTS:
        return layer_shapes(shapes, motion_lora_layers(shapes, manifest))
    return {key.removesuffix(".weight"): shape for key, shape in shapes.items() if re.search(r"\.to_\w.*weight$", key)}


def some(layers, *parts):
    return [(name, shape) for name, shape in layers.items() if name.startswith(parts)]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_reported_with_its_base(tmp_path, spelling):
    tensors = {SPELLINGS[spelling](key): value for key, value in narrow_tensors("v2_lora_ZoomIn").items()}
    path = write_tensors(tmp_path / "lora.safetensors", tensors)
    report = inspect_file(path)
    assert (report.kind, report.base, report.usable, report.family) == ("motion_lora", "sd15", True, None)
    assert (report.made_for, report.base_unknown, report.lora_rank) == (("sd15_v2", "animate_lcm"), None, 64)
    text = describe(report)
    assert "base model:   sd15\n" in text
    assert "made for:     AnimateDiff v2 (SD1.5) or AnimateLCM (SD1.5)\n" in text
    assert load_motion_lora(path).base == "sd15"


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_public_file_is_for_sd15_whichever_part_of_it_is_there(name):
    layers = lora_layers(name)
    assert read_base(layers.items()) == "sd15"
    for parts in (("mid_block",), ("down_blocks.3",), ("up_blocks.3",), ("up_blocks.1",), ("up_blocks.2",)):
        assert read_base(some(layers, *parts)) == "sd15"
    assert read_base(some(layers, "down_blocks.2", "up_blocks.0", "up_blocks.1")) == "sd15"
    for parts in (("down_blocks.0",), ("up_blocks.0",), ("down_blocks.0", "down_blocks.1", "down_blocks.2")):
        with pytest.raises(UnknownBaseError, match=re.escape(ALIKE)):
            read_base(some(layers, *parts))


@pytest.mark.parametrize(
    ("name", "base"),
    [("v3_sd15_mm", "sd15"), ("mm_sd_v15_v2", "sd15"), ("mm_sdxl_v10_beta", "sdxl"), ("mm_sdxl_hs", "sdxl")],
)
def test_a_lora_for_each_module(name, base):
    layers = lora_layers(name)
    for parts in (("down_blocks", "mid_block", "up_blocks"), ("up_blocks",), ("up_blocks.1",), ("up_blocks.2",)):
        assert read_base(some(layers, *parts)) == base
    narrow = {layer: (rows // 10, columns // 10) for layer, (rows, columns) in layers.items()}
    assert read_base(narrow.items()) == base


def test_the_file_of_an_sdxl_lora(tmp_path):
    shapes = {}
    for layer, (rows, columns) in lora_layers("mm_sdxl_hs").items():
        shapes |= {f"{layer}.lora_down.weight": (4, columns // 10), f"{layer}.lora_up.weight": (rows // 10, 4)}
    path = write_tensors(tmp_path / "lora.safetensors", fill(shapes))
    assert (load_motion_lora(path).base, inspect_file(path).base, inspect_file(path).made_for) == ("sdxl", "sdxl", ())


@pytest.mark.parametrize("layer", ["ff.net.0.proj", "ff.net.2"])
def test_feed_forwards_tell_too(layer):
    def level(number, width):
        shape = (8 * width, width) if layer.endswith("proj") else (width, 4 * width)
        return f"up_blocks.{number}.motion_modules.0.{BLOCK}.{layer}", shape

    assert read_base([level(1, 640)]) == "sdxl"
    assert read_base([level(1, 1280)]) == "sd15"
    with pytest.raises(UnknownBaseError, match=re.escape(ALIKE)):
        read_base([level(1, 64)])  # one level of an unknown width


@pytest.mark.parametrize(
    "widths",
    [{("down", 4): 1280}, {("down", 0): 320, ("down", 1): 320, ("up", 2): 320}, {("up", 1): 1280, ("up", 2): 32}],
)
def test_other_networks(widths):
    layers = [
        (f"{part}_blocks.{level}.motion_modules.0.{BLOCK}.attention_blocks.0.to_q", (width, width))
        for (part, level), width in widths.items()
    ]
    with pytest.raises(UnknownBaseError, match=re.escape(NEITHER)):
        read_base(layers)


def test_the_report_says_why_it_does_not_know(tmp_path):
    path = write_tensors(tmp_path / "lora.safetensors", fill(PAIR))
    report = inspect_file(path)
    assert (report.base, report.base_unknown, report.made_for, report.usable) == (None, ALIKE, (), True)
    assert f"base model:   not known. {ALIKE}\n" in describe(report)
    assert load_motion_lora(path).base is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({UP: None}, f"`{DOWN}` has no `up` beside it"),
        ({UP: torch.zeros(32, 5)}, "of one rank, got"),
        ({"down_blocks.0.temporal_attentions.0.to_q.lora_A.weight": torch.zeros(4, 32)}, "a motion LoRA in part only"),
    ],
)
def test_a_file_that_would_not_load_is_reported_so(tmp_path, change, reason):
    tensors = {key: value for key, value in {**fill(PAIR), **change}.items() if value is not None}
    report = inspect_file(write_tensors(tmp_path / "lora.safetensors", tensors))
    assert (report.kind, report.usable) == ("motion_lora", False)
    assert reason in report.reason
