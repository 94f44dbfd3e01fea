"""Motion module files load by content, at any width and in any spelling, and everything else is refused by name."""

from __future__ import annotations

import pytest
import torch

from motion.checkpoints.motion_file import MOTION_FAMILIES, inspect_motion_file, load_motion_model, read_motion
from motion.checkpoints.weight_file import read_shapes
from motion.errors import CheckpointError
from motion.models.temporal_transformer import sinusoidal_table
from tests.checkpoints.files import diffusers_names, fill, narrow_shape, narrow_tensors, write_tensors
from tests.manifests import manifest_names, manifest_shapes

CPU = torch.device("cpu")
# manifest: family, rows of the position table
FAMILIES = {
    "mm_sd_v14": ("sd15_v1", 24),
    "mm_sd_v15": ("sd15_v1", 24),
    "mm_sd_v15_v2": ("sd15_v2", 32),
    "v3_sd15_mm": ("sd15_v3", 32),
    "AnimateLCM_sd15_t2v": ("animate_lcm", 64),
    "mm_sdxl_v10_beta": ("sdxl_beta", 32),
    "mm_sdxl_hs": ("hotshot_xl", 24),
    "hsxl_temporal_layers": ("hotshot_xl", 24),
}
# family: base, UNet norms over frames, motion norm over frames, schedule, its last beta, frames, original LCM steps
FACTS = {
    "sd15_v1": ("sd15", True, False, "linear", 0.012, 16, None),
    "sd15_v2": ("sd15", False, False, "linear", 0.012, 16, None),
    "sd15_v3": ("sd15", False, False, "linear", 0.012, 16, None),
    "animate_lcm": ("sd15", False, False, "linear", 0.012, 16, 100),
    "sdxl_beta": ("sdxl", False, True, "scaled_linear", 0.020, 16, None),
    "hotshot_xl": ("sdxl", True, False, "scaled_linear", 0.012, 8, None),
}
OTHERS = {
    "v2_lora_ZoomIn": "a motion LoRA",
    "mm_sd15_v2_lora_ZoomIn": "a motion LoRA",
    "v3_sd15_adapter": "a domain adapter",
    "sd15-pruned-core": "a Stable Diffusion 1 checkpoint.*models/Stable-diffusion",
    "v1-5-pruned-emaonly": "a Stable Diffusion 1 checkpoint.*models/Stable-diffusion",
    "sd_xl_base_1.0": "an SDXL checkpoint.*models/Stable-diffusion",
    "svd": "a Stable Video Diffusion checkpoint",
}
SPATIAL = {"conv_in.weight": torch.zeros(32, 4, 3, 3), "mid_block.attentions.0.norm.weight": torch.zeros(128)}


def our_name(key: str) -> str:
    key = key.replace("positional_encoding", "pe")
    return (
        key.replace(".temporal_attentions.0", ".motion_modules.0.temporal_transformer")
        .replace(".temporal_attentions.1", ".motion_modules.1.temporal_transformer")
        .replace(".temporal_attentions.2", ".motion_modules.2.temporal_transformer")
    )


def test_facts_of_the_families():
    found = {
        each.id: (
            each.base,
            each.unet_norm_over_frames,
            each.motion_norm_over_frames,
            each.beta_schedule.kind,
            each.beta_schedule.end,
            each.trained_frames,
            each.lcm_original_steps,
        )
        for each in MOTION_FAMILIES.values()
    }
    assert found == FACTS
    assert {each.beta_schedule.start for each in MOTION_FAMILIES.values()} == {0.00085}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
def test_family_and_weights(tmp_path, name, suffix, dtype):
    family_id, length = FAMILIES[name]
    tensors = narrow_tensors(name, dtype)
    path = write_tensors(tmp_path / f"misleading_v1_lcm_hotshot{suffix}", tensors)
    family, config = inspect_motion_file(path)
    sd15 = FACTS[family_id][0] == "sd15"
    assert (family.id, config.max_length, config.num_attention_blocks) == (family_id, length, 2)
    assert config.down_channels == ((32, 64, 128, 128) if sd15 else (32, 64, 128))
    assert config.up_channels == config.down_channels[::-1]
    assert config.mid_channels == (128 if family_id in ("sd15_v2", "animate_lcm") else None)
    assert (config.unet_norm_over_frames, config.motion_norm_over_frames) == FACTS[family_id][1:3]
    assert not read_motion(read_shapes(path), path).family_is_a_guess

    model, again = load_motion_model(path, device=CPU, dtype=None)
    assert again == family
    state = model.state_dict()
    named = {our_name(key): value for key, value in tensors.items()}
    assert named.keys() <= state.keys()
    assert all(torch.equal(state[key], named[key]) and state[key].dtype == dtype for key in named)
    made = state.keys() - named.keys()
    assert len(made) == (42 if name.startswith("AnimateLCM") else 0)
    assert all(torch.equal(state[key], sinusoidal_table(64, state[key].shape[2]).to(dtype)) for key in made)


def test_dtype_of_choice(tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", narrow_tensors("AnimateLCM_sd15_t2v"))
    model, _ = load_motion_model(path, device=CPU, dtype=torch.bfloat16)
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize(("name", "length"), [("v3_sd15_mm", 64), ("mm_sd_v15_v2", 64), ("mm_sd_v15_v2", 16)])
def test_other_widths_and_lengths(tmp_path, name, length):
    shapes = {
        key: (1, length, shape[2]) if key.endswith(".pe") else shape
        for key, full in manifest_shapes(name).items()
        for shape in [narrow_shape(full, width=64)]
    }
    path = write_tensors(tmp_path / "LongAnimateDiff.safetensors", fill(shapes, torch.float16))
    family, config = inspect_motion_file(path)
    assert family.id == FAMILIES[name][0]
    assert (config.down_channels, config.max_length) == ((64, 128, 256, 256), length)


@pytest.mark.parametrize("spelling", ["animatediff", "diffusers"])
def test_one_attention_and_one_resblock_a_level(tmp_path, spelling):
    tensors = {
        key: value
        for key, value in narrow_tensors("mm_sd_v15_v2").items()
        if "attention_blocks.1" not in key and "norms.1" not in key and "mid_block" not in key
        if ("up_" not in key or "modules.2" not in key) and ("down_" not in key or "modules.1" not in key)
    }
    names = {key: key for key in tensors} if spelling == "animatediff" else diffusers_names(tensors)
    written = {names[key]: value for key, value in tensors.items()}
    model, _ = load_motion_model(write_tensors(tmp_path / "a.safetensors", written), device=CPU, dtype=None)
    config = model.config
    assert (config.num_attention_blocks, config.down_modules, config.up_modules) == (1, 1, 2)
    assert model.state_dict().keys() == tensors.keys()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_training_checkpoint_keeps_motion_keys(tmp_path, prefix):
    tensors = narrow_tensors("mm_sd_v15")
    content = {"epoch": 3, "state_dict": {prefix + key: value for key, value in {**SPATIAL, **tensors}.items()}}
    torch.save(content, tmp_path / "a.ckpt")
    model, family = load_motion_model(tmp_path / "a.ckpt", device=CPU, dtype=None)
    assert family.id == "sd15_v1"
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())


# manifest; tables in the file; file name; family; is it a guess
GUESSES = [
    ("mm_sd_v15_v2", True, "animatediff-motion-adapter-v1-5-2/diffusion_pytorch_model.fp16", "sd15_v2", True),
    ("mm_sd_v15_v2", True, "animatediff_lightning_4step_diffusers", "sd15_v2", True),
    ("mm_sd_v15_v2", True, "AnimateLCM/diffusion_pytorch_model", "animate_lcm", True),
    ("mm_sd_v15_v2", True, "animate-lcm_v2", "animate_lcm", True),
    ("mm_sd_v15_v2", False, "anything", "sd15_v2", True),
    ("mm_sd_v15", True, "v3", "sd15_v1", False),
    ("v3_sd15_mm", True, "v1", "sd15_v3", False),
    ("v3_sd15_mm", False, "animatediff-motion-adapter-v1-5-3/model", "sd15_v3", True),
    ("v3_sd15_mm", False, "mm_sd_v14", "sd15_v1", True),
    ("v3_sd15_mm", False, "animatediff-motion-adapter-v1-4/model", "sd15_v1", True),
    ("mm_sdxl_v10_beta", True, "hotshot", "sdxl_beta", False),
    ("mm_sdxl_v10_beta", False, "sdxl", "sdxl_beta", True),
    ("mm_sdxl_hs", False, "hsxl", "hotshot_xl", True),
]


@pytest.mark.parametrize(("manifest", "tables", "name", "expected", "guess"), GUESSES)
def test_diffusers_spelling(tmp_path, manifest, tables, name, expected, guess):
    tensors = {key: value for key, value in narrow_tensors(manifest).items() if tables or not key.endswith(".pe")}
    path = tmp_path / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, {other: tensors[key] for key, other in reversed(diffusers_names(tensors).items())})
    header = read_motion(read_shapes(path), path)
    assert (header.family.id, header.family_is_a_guess) == (expected, guess)


@pytest.mark.parametrize("tables", [True, False])
def test_diffusers_weights(tmp_path, tables):
    tensors = {key: value for key, value in narrow_tensors("mm_sdxl_hs").items() if tables or not key.endswith(".pe")}
    names = diffusers_names(tensors)
    path = write_tensors(tmp_path / "hotshot.ckpt", {names[key]: value for key, value in tensors.items()})
    state = load_motion_model(path, device=CPU, dtype=None)[0].state_dict()
    assert {value.shape[1] for key, value in state.items() if key.endswith(".pe")} == {24}
    own = {key: value for key, value in tensors.items() if not key.endswith(".pe")}
    assert all(torch.equal(state[key], value) for key, value in own.items())
    for key in (key for key in state if key.endswith(".pe")):
        site = key.split(".attention_blocks")[0]
        shared = tensors.get(f"{site}.attention_blocks.1.pos_encoder.pe", sinusoidal_table(24, state[key].shape[2]))
        assert torch.equal(state[key], shared)


def test_caller_overrides_the_family(tmp_path):
    tensors = narrow_tensors("AnimateLCM_sd15_t2v")
    names = diffusers_names(tensors)
    path = write_tensors(tmp_path / "AnimateLCM.safetensors", {names[key]: value for key, value in tensors.items()})
    family, config = inspect_motion_file(path, family="sd15_v2")
    assert (family.id, config.max_length) == ("sd15_v2", 32)
    assert not read_motion(read_shapes(path), path, family="sd15_v2").family_is_a_guess
    _, loaded = load_motion_model(path, device=CPU, dtype=None, family="sd15_v1")
    assert loaded.id == "sd15_v1"
    for wrong in ("hotshot_xl", "none"):
        with pytest.raises(CheckpointError, match=f"one of sd15_v1, .*, got `{wrong}`"):
            inspect_motion_file(path, family=wrong)


def test_every_recorded_file_is_loaded_or_refused():
    assert sorted({**FAMILIES, **OTHERS}) == manifest_names()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused_by_name(tmp_path, name, dtype, suffix):
    shapes = {key: (1,) * len(shape) for key, shape in manifest_shapes(name).items()}
    if (unet_input := "model.diffusion_model.input_blocks.0.0.weight") in shapes:
        shapes[unet_input] = (1, 4, 1, 1)
    path = write_tensors(
        tmp_path / f"mm_sd_v15_v2{suffix}", {key: torch.zeros(shape, dtype=dtype) for key, shape in shapes.items()}
    )
    with pytest.raises(CheckpointError, match=f"mm_sd_v15_v2.*This is {OTHERS[name]}.* Choose .*AnimateDiff v1"):
        load_motion_model(path, device=CPU, dtype=None)


def test_unknown_file_shows_its_keys(tmp_path):
    path = write_tensors(tmp_path / "a.pt", fill({"weight": (2,), "bias": (2,)}))
    with pytest.raises(CheckpointError, match=r"no motion module; .* `weight`, `bias`"):
        inspect_motion_file(path)
