"""SDXL checkpoints of any width: told by their content, loaded part by part, and what looks like one is refused."""

from __future__ import annotations

import pytest
import torch
import yaml
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from motion.checkpoints.network_shapes import (
    derive_autoencoder_config,
    derive_text_encoder_config,
    derive_unet_config,
)
from motion.checkpoints.sdxl_text import open_clip_part
from motion.checkpoints.stable_diffusion import inspect_checkpoint, open_checkpoint
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.unet import UNetModel
from tests import sdxl_files
from tests.checkpoints.files import write_tensors
from tests.manifests import manifest_shapes

CPU = torch.device("cpu")
VOCABULARY = 1000
START, END = VOCABULARY - 2, VOCABULARY - 1
FIRST, SECOND = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


@pytest.fixture(scope="module")
def tensors():
    return sdxl_files.sdxl_tensors(VOCABULARY)


@pytest.fixture(scope="module")
def path(tensors, tmp_path_factory):
    return write_tensors(tmp_path_factory.mktemp("sdxl") / "narrow.safetensors", tensors)


@pytest.fixture
def encoders(path):
    with open_checkpoint(path) as checkpoint:
        return (
            checkpoint.load_text_encoder(device=CPU, dtype=torch.float32),
            checkpoint.load_second_text_encoder(device=CPU, dtype=torch.float32),
        )


@pytest.fixture(scope="module")
def token_ids():
    """Three texts, the second of them full, padded with zeros after their end tokens."""
    ids = torch.zeros(3, 77, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    for row, length in enumerate((0, 75, 12)):
        ids[row, 1 : length + 1] = torch.randint(1, START, (length,), generator=generator)
        ids[row, 0], ids[row, length + 1] = START, END
    return ids


def test_full_size_checkpoint_gives_the_known_networks():
    """Every key and shape of the public file is one of our networks', and the other way round."""
    shapes = manifest_shapes("sd_xl_base_1.0")
    on_meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    first = {
        key.removeprefix("conditioner.embedders.0."): shape for key, shape in shapes.items() if key.startswith(FIRST)
    }
    del first["transformer.text_model.embeddings.position_ids"]
    second = {key: tuple(tensor.shape) for key, tensor in open_clip_part(on_meta).items()}
    prefix = "model.diffusion_model."
    unet = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    vae = "first_stage_model."
    autoencoder = {key.removeprefix(vae): shape for key, shape in shapes.items() if key.startswith(vae)}
    assert derive_autoencoder_config(autoencoder) == AutoencoderConfig()
    assert derive_text_encoder_config(first) == ClipTextEncoderConfig()
    big = ClipTextEncoderConfig(
        hidden_size=1280,
        num_layers=32,
        num_heads=20,
        intermediate_size=5120,
        hidden_act="gelu",
        projection_size=1280,
    )
    assert derive_text_encoder_config(second, hidden_act="gelu") == big
    for network, config, expected in (
        (ClipTextEncoder, ClipTextEncoderConfig(), first),
        (ClipTextEncoder, big, second),
        (UNetModel, derive_unet_config(unet), unet),
        (AutoencoderKL, AutoencoderConfig(), autoencoder),
    ):
        with torch.device("meta"):
            made = network(config).state_dict()
        assert {key: tuple(value.shape) for key, value in made.items()} == expected


def test_narrow_checkpoint_is_read_from_its_shapes(path):
    config = inspect_checkpoint(path)
    assert config.unet == sdxl_files.UNET
    assert config.autoencoder == sdxl_files.AUTOENCODER
    assert (config.text_encoder.hidden_size, config.text_encoder.num_layers) == (64, 3)
    assert (config.second_text_encoder.hidden_size, config.second_text_encoder.num_heads) == (128, 2)
    assert config.second_text_encoder.projection_size == 96


def test_loaded_parts_hold_the_file_s_numbers(path, tensors):
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.base == "sdxl"
        unet = checkpoint.load_unet(device=CPU, dtype=None)
        second = checkpoint.load_second_text_encoder(device=CPU, dtype=None)
    for key, value in unet.state_dict().items():
        assert torch.equal(value, tensors["model.diffusion_model." + key])
    attention = second.transformer.text_model.encoder.layers[1].self_attn
    joined = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    assert torch.equal(joined, tensors[SECOND + "transformer.resblocks.1.attn.in_proj_weight"])
    assert torch.equal(second.transformer.text_projection.weight.T, tensors[SECOND + "text_projection"])
    assert all(parameter.is_contiguous() for parameter in second.parameters())


class OpenClipBlock(nn.Module):
    """A residual block as OpenCLIP builds it, with torch's own attention over joined q, k and v."""

    def __init__(self, width, heads):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


@torch.no_grad()
def open_clip_reference(tensors, ids):
    """(last but one layer, pooled) with the arithmetic of the original, from the file's own keys."""
    own = {key.removeprefix(SECOND): value.float() for key, value in tensors.items() if key.startswith(SECOND)}
    x = own["token_embedding.weight"][ids] + own["positional_embedding"]
    mask = torch.full((77, 77), float("-inf")).triu(1)
    layers = [x]
    for index in range(sdxl_files.OPEN_CLIP_LAYERS):
        block = OpenClipBlock(sdxl_files.OPEN_CLIP_WIDTH, 2)
        prefix = f"transformer.resblocks.{index}."
        block.load_state_dict({k.removeprefix(prefix): v for k, v in own.items() if k.startswith(prefix)})
        layers.append(block(layers[-1], mask))
    normed = nn.functional.layer_norm(layers[-1], (x.shape[-1],), own["ln_final.weight"], own["ln_final.bias"])
    return layers[-2], normed[torch.arange(len(ids)), ids.argmax(-1)] @ own["text_projection"]


@torch.no_grad()
def test_second_encoder_against_open_clip_s_arithmetic(encoders, tensors, token_ids):
    hidden, pooled = encoders[1].encode_for_sdxl(token_ids)
    expected_hidden, expected_pooled = open_clip_reference(tensors, token_ids)
    torch.testing.assert_close(hidden, expected_hidden, rtol=0, atol=2e-5)
    torch.testing.assert_close(pooled, expected_pooled, rtol=0, atol=2e-5)


@torch.no_grad()
def test_second_encoder_against_diffusers_conversion(encoders, tensors, token_ids):
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        eos_token_id=END,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=2,
        hidden_act="gelu",
        projection_dim=sdxl_files.POOLED_WIDTH,
    )
    oracle = CLIPTextModelWithProjection(config).eval()
    state = {key: value.float() for key, value in tensors.items()}
    oracle.load_state_dict(convert_open_clip_checkpoint(oracle, state, prefix=SECOND), strict=False)
    outputs = oracle(token_ids, output_hidden_states=True)
    hidden, pooled = encoders[1].encode_for_sdxl(token_ids)
    torch.testing.assert_close(hidden, outputs.hidden_states[-2], rtol=0, atol=2e-5)
    torch.testing.assert_close(pooled, outputs.text_embeds, rtol=0, atol=2e-5)


@torch.no_grad()
def test_first_encoder_gives_a_layer_without_the_final_norm(encoders, token_ids):
    expected = encoders[0].transformer(token_ids, output_hidden_states=True).hidden_states
    hidden, pooled = encoders[0].encode_for_sdxl(token_ids)
    assert torch.equal(hidden, expected[2])
    assert pooled is None
    assert torch.equal(encoders[0].encode_for_sdxl(token_ids, 1)[0], expected[3])
    with pytest.raises(ValueError, match="must be 1 to 3"):
        encoders[0].encode_for_sdxl(token_ids, 4)


def test_yaml_of_sgm_s_form(path, tensors, tmp_path):
    copy = write_tensors(tmp_path / "a.safetensors", tensors)

    def write(scaling="EpsScaling", scale_factor=0.13025, **unet):
        denoiser = {"params": {"scaling_config": {"target": f"sgm.modules.denoiser_scaling.{scaling}"}}}
        params = {"scale_factor": scale_factor, "denoiser_config": denoiser, "network_config": {"params": unet}}
        copy.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"params": params}}))

    write(num_head_channels=32, model_channels=32, channel_mult=[1, 2, 4])
    assert inspect_checkpoint(copy).unet.num_head_channels == 32
    for arguments, message in (
        ({"scaling": "VScaling"}, "predicts v"),
        ({"scale_factor": 0.18215}, "`scale_factor` must be 0.13025 for an SDXL checkpoint, got 0.18215"),
        ({"context_dim": 2048}, "`context_dim` of its yaml is 2048, but its tensors say 192"),
    ):
        write(**arguments)
        with pytest.raises(CheckpointError, match=message):
            inspect_checkpoint(copy)


ONE_LAYER = {
    key: None for key in sdxl_files.open_clip_shapes(VOCABULARY) if ".resblocks." in key and ".resblocks.0." not in key
}
REFINER = {"model.diffusion_model.input_blocks.0.0.weight": (384, 4, 3, 3), "conditioner.embedders.0.model.x": (1,)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (REFINER, "This is an SDXL refiner checkpoint"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (32, 9, 3, 3)}, "This is an inpainting"),
        ({"v_pred": ()}, "an SDXL checkpoint that predicts v .*not yet supported"),
        ({SECOND + "text_projection": None}, "lacks 'conditioner.embedders.1.model.text_projection'"),
        ({SECOND + "text_projection": (128, 64)}, "vector of 1632 channels, text and sizes make 1600"),
        (ONE_LAYER, r"last but one layer of its text encoders, but these have \(3, 1\) layers"),
        ({SECOND + "transformer.resblocks.0.mlp.c_fc.weight": ()}, "fewer axes than its name asks for"),
        ({SECOND + "transformer.resblocks.3.ln_1.bias": None}, "lacks 1 tensors: .*layers.3.layer_norm1.bias"),
        ({SECOND + "transformer.resblocks.0.attn.in_proj_bias": ()}, "must have shape"),
        ({SECOND + "transformer.resblocks.0.attn.in_proj_bias": (383,)}, r"must have shape \[128\], got \[127\]"),
        ({SECOND + "head.weight": (2, 2)}, "unexpected 1 tensors: `transformer.head.weight`"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tensors, tmp_path, changed, message):
    damaged = dict(tensors)
    for key, shape in changed.items():
        damaged.pop(key, None)
        if shape is not None:
            damaged[key] = torch.zeros(shape)
    file = write_tensors(tmp_path / "a.safetensors", damaged)
    with pytest.raises(CheckpointError, match=message), open_checkpoint(file) as checkpoint:
        checkpoint.load_second_text_encoder(device=CPU, dtype=None)
