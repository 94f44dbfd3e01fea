"""Checkpoints of any width: shapes give the networks, a yaml gives what shapes can't tell."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import yaml

from motion.checkpoints.network_shapes import (
    derive_autoencoder_config,
    derive_text_encoder_config,
    derive_unet_config,
)
from motion.checkpoints.stable_diffusion import inspect_checkpoint, open_checkpoint
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.unet import UNetConfig, UNetModel
from tests.checkpoints.files import fill, write_tensors
from tests.manifests import manifest_shapes

CPU = torch.device("cpu")
PREFIXES = {"unet": "model.diffusion_model.", "autoencoder": "first_stage_model.", "text": "cond_stage_model."}
UNET = UNetConfig(model_channels=32, channel_mult=(1, 2), transformer_depth=(1, 0), num_res_blocks=1, context_dim=64)
AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1, 2), num_res_blocks=1)
TEXT = ClipTextEncoderConfig(hidden_size=64, num_layers=2, num_heads=1, intermediate_size=128)


def network_shapes(network: type, config: object, prefix: str = "") -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {prefix + key: tuple(value.shape) for key, value in network(config).state_dict().items()}


def part_shapes(name: str, prefix: str) -> dict[str, tuple[int, ...]]:
    shapes = manifest_shapes(name)
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def tiny_checkpoint() -> dict[str, torch.Tensor]:
    shapes = {
        **network_shapes(UNetModel, UNET, PREFIXES["unet"]),
        **network_shapes(AutoencoderKL, AUTOENCODER, PREFIXES["autoencoder"]),
        **network_shapes(ClipTextEncoder, TEXT, PREFIXES["text"]),
    }
    extras = {
        "alphas_cumprod": torch.ones(1000),
        "model_ema.num_updates": torch.tensor(1),
        "first_stage_model.loss.logvar": torch.zeros(()),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77).unsqueeze(0),
    }
    return {**fill(shapes, torch.float16), **extras}


def test_full_size_checkpoint_gives_the_known_networks():
    unet = part_shapes("sd15-pruned-core", PREFIXES["unet"])
    autoencoder = part_shapes("sd15-pruned-core", PREFIXES["autoencoder"])
    text = part_shapes("sd15-pruned-core", PREFIXES["text"])
    del text["transformer.text_model.embeddings.position_ids"]
    assert derive_unet_config(unet) == UNetConfig()
    assert derive_autoencoder_config(autoencoder) == AutoencoderConfig()
    assert derive_text_encoder_config(text) == ClipTextEncoderConfig()
    assert network_shapes(ClipTextEncoder, ClipTextEncoderConfig()) == text
    assert network_shapes(UNetModel, UNetConfig()) == unet


def test_an_encoder_may_have_no_residual_blocks_but_the_middle_ones():
    config = AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=0)
    assert derive_autoencoder_config(network_shapes(AutoencoderKL, config)) == config


def test_sdxl_unet_is_read_from_its_shapes():
    config = derive_unet_config(part_shapes("sd_xl_base_1.0", PREFIXES["unet"]))
    assert (config.channel_mult, config.transformer_depth, config.mid_transformer_depth) == ((1, 2, 4), (0, 2, 10), 10)
    assert (config.num_head_channels, config.context_dim, config.use_linear) == (64, 2048, True)
    assert config.adm_in_channels == 2816


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_narrow_checkpoint_loads_part_by_part(tmp_path, suffix):
    tensors = tiny_checkpoint()
    path = write_tensors(tmp_path / f"tiny{suffix}", tensors)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.config.unet == UNET
        assert checkpoint.config.autoencoder == AUTOENCODER
        assert checkpoint.config.text_encoder == TEXT
        networks = {
            "unet": checkpoint.load_unet(device=CPU, dtype=None),
            "autoencoder": checkpoint.load_autoencoder(device=CPU, dtype=torch.float32),
            "text": checkpoint.load_text_encoder(device=CPU, dtype=torch.float32),
        }
    assert networks["unet"].dtype == torch.float16
    for part, network in networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, tensors[PREFIXES[part] + key].to(value.dtype))
    tokens = networks["text"](torch.randint(100, (1, 77)))
    latents = networks["autoencoder"].encode(torch.zeros(1, 3, 32, 32)).mode()
    noise = networks["unet"].float()(latents, torch.tensor([10]), tokens)
    assert noise.shape == (1, 4, 16, 16)


def test_text_encoder_under_old_keys(tmp_path):
    tensors = {key.replace(".text_model.", "."): value for key, value in tiny_checkpoint().items()}
    path = write_tensors(tmp_path / "old.safetensors", tensors)
    with open_checkpoint(path) as checkpoint:
        encoder = checkpoint.load_text_encoder(device=CPU, dtype=None)
    key = "cond_stage_model.transformer.final_layer_norm.weight"
    assert torch.equal(encoder.transformer.text_model.final_layer_norm.weight, tensors[key])


def write_yaml(path, model=None, **unet):
    content = {"model": {"params": {**(model or {}), "unet_config": {"params": unet}}}}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(content))


def test_yaml_gives_the_heads(tmp_path):
    path = write_tensors(tmp_path / "a.safetensors", tiny_checkpoint())
    write_yaml(path, model_channels=32, channel_mult=[1, 2], num_heads=4, context_dim=64)
    assert inspect_checkpoint(path).unet == dataclasses.replace(UNET, num_heads=4)
    write_yaml(path, num_heads=-1, num_head_channels=16)
    assert inspect_checkpoint(path).unet == dataclasses.replace(UNET, num_head_channels=16)


@pytest.mark.parametrize(
    ("model", "unet", "message"),
    [
        ({}, {"model_channels": 320}, "`model_channels` of its yaml is 320, but its tensors say 32"),
        ({}, {"channel_mult": [1, 4]}, r"`channel_mult` of its yaml is \[1, 4\]"),
        ({}, {"num_heads": 5}, "can't be split into heads by 5"),
        ({}, {"num_heads": "many"}, "must be a positive integer"),
        ({"parameterization": "v"}, {}, "`parameterization` must be eps"),
    ],
)
def test_yaml_that_does_not_fit(tmp_path, model, unet, message):
    path = write_tensors(tmp_path / "a.safetensors", tiny_checkpoint())
    write_yaml(path, model, **unet)
    with pytest.raises(CheckpointError, match=message):
        inspect_checkpoint(path)


@pytest.mark.parametrize("text", ["- a\n", "model: {params: 3}\n", "a: [", "model:\n\tx"])
def test_yaml_that_is_none(tmp_path, text):
    path = write_tensors(tmp_path / "a.safetensors", tiny_checkpoint())
    path.with_suffix(".yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"a\.yaml: The file"):
        inspect_checkpoint(path)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("first_stage_model.", "holds no autoencoder"),
        ("cond_stage_model.", "This is a UNet without text encoder"),
        ("model.diffusion_model.out.", "lacks 'out.2.weight'"),
        ("model.diffusion_model.time_embed.0.bias", "lacks 1 tensors: `time_embed.0.bias`"),
    ],
)
def test_incomplete_checkpoint(tmp_path, drop, message):
    tensors = {key: value for key, value in tiny_checkpoint().items() if not key.startswith(drop)}
    path = write_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(CheckpointError, match=message), open_checkpoint(path) as checkpoint:
        checkpoint.load_unet(device=CPU, dtype=None)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("svd", "a Stable Video Diffusion checkpoint"),
        ("mm_sd_v15_v2", "a motion module in AnimateDiff's spelling"),
        ("v2_lora_ZoomIn", "a motion LoRA"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, title):
    # The UNet's input channels and the length of position tables are what detectors read beside the keys.
    kept = ("input_blocks.0.0.weight", ".pe")
    shapes = {key: shape if key.endswith(kept) else (1,) for key, shape in manifest_shapes(name).items()}
    path = write_tensors(tmp_path / "model.safetensors", fill(shapes, torch.float16))
    with pytest.raises(CheckpointError, match=f"This is {title}.* Choose a single-file Stable Diffusion 1"):
        inspect_checkpoint(path)


def test_text_of_another_width_than_the_unet_takes(tmp_path):
    tensors = tiny_checkpoint()
    for key in [key for key in tensors if ".attn2.to_k." in key]:
        tensors[key] = torch.zeros(tensors[key].shape[0], 96)
    with pytest.raises(CheckpointError, match=r"takes texts of 96 channels, its encoders make \[64\]"):
        inspect_checkpoint(write_tensors(tmp_path / "a.safetensors", tensors))


def test_inpainting_and_unknown_files_are_refused(tmp_path):
    tensors = tiny_checkpoint()
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, 9, 3, 3)
    with pytest.raises(CheckpointError, match="inpainting"):
        inspect_checkpoint(write_tensors(tmp_path / "a.safetensors", tensors))
    with pytest.raises(CheckpointError, match="unknown kind, with tensors such as `weight`"):
        inspect_checkpoint(write_tensors(tmp_path / "b.pt", {"weight": torch.zeros(2)}))
