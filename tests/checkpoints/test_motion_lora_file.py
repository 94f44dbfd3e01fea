"""A motion LoRA is the same in every spelling; everything else is refused with the reason."""

import re

import pytest
import torch

from motion.checkpoints.domain_adapter_file import is_domain_adapter, load_domain_adapter
from motion.checkpoints.motion_lora_file import is_motion_lora, load_motion_lora
from motion.errors import CheckpointError
from tests.checkpoints.files import fill, narrow_tensors, write_tensors
from tests.manifests import manifest_names, manifest_shapes
from tests.networks import make_motion

LAYER = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q"
KEY = LAYER.replace(".to_q", ".processor.to_q_lora")
PAIR = {f"{KEY}.down.weight": (4, 32), f"{KEY}.up.weight": (32, 4)}
SPATIAL = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora"
SPATIAL_PAIR = {f"{SPATIAL}.down.weight": (4, 32), f"{SPATIAL}.up.weight": (32, 4)}


@pytest.fixture(scope="module")
def original():
    """Key -> tensor of a motion LoRA for a narrow v2 module, as AnimateDiff publishes it."""
    return narrow_tensors("v2_lora_ZoomIn")


def to_diffusers(key, role="lora.{}"):
    key = key.replace("temporal_transformer.", "")
    key = re.sub(r"attention_blocks\.(\d)", lambda match: f"attn{int(match[1]) + 1}", key)
    return re.sub(
        r"processor\.to_(\w+)_lora\.(\w+)\.",
        lambda match: f"to_{match[1]}{'.0' * (match[1] == 'out')}.{role.format(match[2])}.",
        key,
    )


def to_peft(key):
    return to_diffusers(key, "lora_{}").replace("lora_down.", "lora_A.").replace("lora_up.", "lora_B.")


def to_a1111(key):
    layer, role = re.fullmatch(r"(.+)_lora\.(up|down)\.weight", key.replace("processor.", "")).groups()
    layer = re.sub(r"to_out$", "to_out_0", layer.replace(".", "_"))
    return f"{layer}.lora_{role}.weight"


SPELLINGS = {
    "original": lambda key: key,
    "original, to_out.0": lambda key: key.replace("to_out_lora", "to_out.0_lora"),
    "training": lambda key: f"module.{key}",
    "A1111": to_a1111,
    "A1111, to_out": lambda key: to_a1111(key).replace("to_out_0.", "to_out."),
    "kohya": lambda key: f"lora_unet_{to_a1111(key)}",
    "diffusers": to_diffusers,
    "diffusers with unet.": lambda key: f"unet.{to_diffusers(key)}",
    "diffusers before peft": lambda key: "unet." + to_diffusers(key, "lora_linear_layer.{}"),
    "peft": lambda key: f"base_model.model.{to_peft(key)}",
    "peft in a pipeline": lambda key: f"unet.{to_peft(key)}",
    "peft, named adapter": lambda key: f"base_model.model.{to_peft(key).replace('.weight', '.default.weight')}",
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_lora(tmp_path, original, spelling, suffix):
    tensors = {SPELLINGS[spelling](key): value for key, value in original.items()}
    assert len(tensors) == len(original)
    lora = load_motion_lora(write_tensors(tmp_path / f"lora{suffix}", tensors))
    if spelling != "training":
        assert is_motion_lora({key: tuple(value.shape) for key, value in tensors.items()})
    assert lora.rank == 64
    assert len(lora.deltas) == 168
    assert {f"{name}.weight" for name in lora.deltas if ".to_out" not in name} <= original_parameters()
    delta = lora.deltas[LAYER.replace("to_q", "to_out.0")]
    key = KEY.replace("to_q", "to_out")
    assert torch.equal(delta.down, original[f"{key}.down.weight"])
    assert torch.equal(delta.up, original[f"{key}.up.weight"])
    assert delta.scale == 1
    assert delta.shape == (32, 32)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["v2_lora_ZoomIn", "mm_sd15_v2_lora_ZoomIn", "v3_sd15_adapter"])
def test_every_tensor_of_a_public_file_has_its_place(tmp_path, name, dtype, suffix):
    tensors = narrow_tensors(name, dtype)
    load = load_domain_adapter if name == "v3_sd15_adapter" else load_motion_lora
    loaded = load(write_tensors(tmp_path / f"file{suffix}", tensors))
    places = [tensor for delta in loaded.deltas.values() for tensor in (delta.down, delta.up)]
    assert len(places) == len(tensors)
    assert {tensor.dtype for tensor in places} == {dtype}
    by_key = {delta.key: delta for delta in loaded.deltas.values()}
    assert all(torch.equal(delta.down, tensors[key]) for key, delta in by_key.items())
    ups = {key: tensors[re.sub(r"down(?=\.weight$)", "up", key)] for key in by_key}
    assert all(torch.equal(delta.up, ups[key]) for key, delta in by_key.items())


def original_parameters():
    return set(manifest_shapes("mm_sd_v15_v2"))


def test_a1111_spelling_is_that_of_the_public_file(original):
    assert {to_a1111(key) for key in original} == set(manifest_shapes("mm_sd15_v2_lora_ZoomIn"))


def test_layers_have_the_names_of_our_network(tmp_path):
    layers = {name for name, module in make_motion().named_modules() if isinstance(module, torch.nn.Linear)}
    shapes = {}
    for name in layers:
        for role, shape in (("up", (32, 4)), ("down", (4, 32))):
            shapes[f"{name}.lora_{role}.weight"] = shape
            shapes[f"lora_unet_{name.replace('.', '_')}.lora_{role}.weight"] = shape
    dotted = {key: shape for key, shape in shapes.items() if not key.startswith("lora_unet")}
    joined = {key: shape for key, shape in shapes.items() if key.startswith("lora_unet")}
    for tensors in (dotted, joined):
        lora = load_motion_lora(write_tensors(tmp_path / "lora.safetensors", fill(tensors)))
        assert set(lora.deltas) == layers
    assert any(name.endswith("ff.net.0.proj") for name in layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tensors_keep_their_type_and_own_their_memory(tmp_path, dtype):
    path = write_tensors(tmp_path / "lora.safetensors", fill(PAIR, dtype))
    lora = load_motion_lora(path)
    path.write_bytes(bytes(path.stat().st_size))
    delta = lora.deltas[LAYER]
    assert delta.down.dtype == delta.up.dtype == dtype
    assert torch.equal(delta.up, fill(PAIR, dtype)[f"{KEY}.up.weight"])


@pytest.mark.parametrize("shape", [(), (1,)])
def test_alpha_is_divided_by_the_rank(tmp_path, shape):
    tensors = {to_a1111(key): value for key, value in fill(PAIR).items()}
    alpha = next(iter(tensors)).partition(".")[0] + ".alpha"
    path = write_tensors(tmp_path / "lora.safetensors", {**tensors, alpha: torch.full(shape, 2.0)})
    assert load_motion_lora(path).deltas[LAYER].scale == 0.5


@pytest.mark.parametrize("name", manifest_names())
def test_only_motion_loras_and_adapters_are_detected(name):
    shapes = manifest_shapes(name)
    assert is_motion_lora(shapes) == (name in ("v2_lora_ZoomIn", "mm_sd15_v2_lora_ZoomIn"))
    assert is_domain_adapter(shapes) == (name == "v3_sd15_adapter")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v3_sd15_adapter", "This is not a motion LoRA, but a domain adapter. Choose a motion LoRA"),
        ("v3_sd15_mm", "This is not a motion LoRA, but .*motion module"),
    ],
)
def test_other_files_are_refused_as_what_they_are(tmp_path, name, message):
    path = write_tensors(tmp_path / "file.safetensors", narrow_tensors(name))
    with pytest.raises(CheckpointError, match=message):
        load_motion_lora(path)


def test_layers_that_no_motion_module_has_are_named(tmp_path):
    tensors = {key.replace("to_q", "to_x"): value for key, value in fill(PAIR).items()}
    with pytest.raises(CheckpointError, match=r"not a motion LoRA, with tensors such as `.*to_x_lora\.down\.weight`"):
        load_motion_lora(write_tensors(tmp_path / "lora.safetensors", tensors))


def test_domain_adapter(tmp_path):
    tensors = narrow_tensors("v3_sd15_adapter", torch.float16)
    adapter = load_domain_adapter(write_tensors(tmp_path / "v3_sd15_adapter.ckpt", tensors))
    assert adapter.rank == 128
    assert len(adapter.deltas) == 128
    prefix = "up_blocks.3.attentions.2.transformer_blocks.0.attn2."
    delta = adapter.deltas[f"{prefix}to_out.0"]
    assert torch.equal(delta.up, tensors[f"{prefix}processor.to_out_lora.up.weight"])
    assert delta.scale == 1
    assert adapter.deltas[f"{prefix}to_k"].shape == (32, 768)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (narrow_tensors("v2_lora_ZoomIn"), "not a domain adapter in its original spelling, but a motion LoRA"),
        (
            fill({"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight": (32, 4)}),
            "not a domain adapter in its original spelling, but an? .*LoRA. .* the web UI's own LoRA folder",
        ),
        (fill({**SPATIAL_PAIR, **PAIR}), f"in part only: `{KEY}.down.weight` is something else"),
    ],
)
def test_others_are_no_domain_adapter(tmp_path, tensors, message):
    with pytest.raises(CheckpointError, match=message):
        load_domain_adapter(write_tensors(tmp_path / "file.safetensors", tensors))


DOWN, UP = f"{KEY}.down.weight", f"{KEY}.up.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({UP: None}, rf"`{DOWN}` has no `up` beside it"),
        ({UP: torch.zeros(32, 5)}, rf"`{DOWN}` and `{UP}` must have shapes .* got \[4, 32\] and \[32, 5\]"),
        ({DOWN: torch.zeros(4, 32, 1, 1)}, r"must have shapes .* got \[4, 32, 1, 1\]"),
        ({DOWN: torch.zeros(0, 32), UP: torch.zeros(32, 0)}, r"must have shapes .* got \[0, 32\] and \[32, 0\]"),
        ({DOWN: torch.full((4, 32), torch.nan)}, rf"`{DOWN}` holds numbers that are not finite"),
        ({UP: torch.full((32, 4), torch.inf)}, rf"`{UP}` holds numbers that are not finite"),
        ({UP: torch.ones(32, 4, dtype=torch.int8)}, rf"`{UP}` must hold real numbers, got torch.int8"),
        ({f"{KEY}.dora_scale": torch.ones(32)}, rf"in part only: `{KEY}.dora_scale` is something else"),
        ({key: torch.ones(shape) for key, shape in SPATIAL_PAIR.items()}, f"in part only: `{SPATIAL}.down.weight`"),
        ({DOWN.replace("processor.", ""): torch.ones(4, 32)}, f"one tensor twice, as `{DOWN}` and as `"),
        ({f"{LAYER}.alpha": torch.ones(3)}, rf"`{LAYER}.alpha` must be one number, got shape \[3\]"),
        ({f"{LAYER}.alpha": torch.tensor(torch.nan)}, rf"`{LAYER}.alpha` holds numbers that are not finite"),
    ],
)
def test_damaged_files_are_refused_by_key(tmp_path, change, message):
    tensors = {key: value for key, value in {**fill(PAIR), **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        load_motion_lora(write_tensors(tmp_path / "lora.ckpt", tensors))
