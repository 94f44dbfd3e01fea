"""A narrow SDXL checkpoint with the keys of the public one, and motion modules that fit it."""

from __future__ import annotations

import torch
from torch import Tensor

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from tests.weights_recipe import fill

CLIP_WIDTH, OPEN_CLIP_WIDTH, POOLED_WIDTH = 64, 128, 96
CLIP_LAYERS, OPEN_CLIP_LAYERS = 3, 4
POSITIONS = 77
UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2, 4),
    transformer_depth=(0, 1, 2),
    mid_transformer_depth=2,
    num_head_channels=64,
    context_dim=CLIP_WIDTH + OPEN_CLIP_WIDTH,
    use_linear=True,
    adm_in_channels=POOLED_WIDTH + 6 * 256,
)
AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
WIDTHS = (32, 64, 128)

Shapes = dict[str, tuple[int, ...]]


def sdxl_tensors(vocabulary: int = 49408, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Key -> tensor of a whole checkpoint; a key's numbers depend on the key alone."""
    with torch.device("meta"):
        networks = (("model.diffusion_model.", UNetModel(UNET)), ("first_stage_model.", AutoencoderKL(AUTOENCODER)))
    shapes: Shapes = {
        prefix + key: tuple(value.shape) for prefix, network in networks for key, value in network.state_dict().items()
    }
    shapes |= clip_shapes(vocabulary) | open_clip_shapes(vocabulary)
    tensors = {key: fill(key, shape).to(dtype) for key, shape in shapes.items()}
    tensors["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    return tensors


def clip_shapes(vocabulary: int) -> Shapes:
    """Keys of CLIP in transformers' spelling."""
    width = CLIP_WIDTH
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (vocabulary, width),
        "embeddings.position_embedding.weight": (POSITIONS, width),
        **_with_bias("final_layer_norm", (width,)),
    }
    for index in range(CLIP_LAYERS):
        layer = f"encoder.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _with_bias(f"{layer}self_attn.{name}", (width, width))
        shapes |= _with_bias(f"{layer}layer_norm1", (width,)) | _with_bias(f"{layer}layer_norm2", (width,))
        shapes |= _with_bias(f"{layer}mlp.fc1", (4 * width, width)) | _with_bias(f"{layer}mlp.fc2", (width, 4 * width))
    return {"conditioner.embedders.0.transformer.text_model." + key: shape for key, shape in shapes.items()}


def open_clip_shapes(vocabulary: int) -> Shapes:
    """Keys of OpenCLIP's text tower in its own spelling."""
    width = OPEN_CLIP_WIDTH
    shapes: Shapes = {
        "positional_embedding": (POSITIONS, width),
        "text_projection": (width, POOLED_WIDTH),
        "logit_scale": (),
        "token_embedding.weight": (vocabulary, width),
        **_with_bias("ln_final", (width,)),
    }
    for index in range(OPEN_CLIP_LAYERS):
        block = f"transformer.resblocks.{index}."
        shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
        shapes |= _with_bias(f"{block}attn.out_proj", (width, width))
        shapes |= _with_bias(f"{block}ln_1", (width,)) | _with_bias(f"{block}ln_2", (width,))
        shapes |= _with_bias(f"{block}mlp.c_fc", (4 * width, width)) | _with_bias(
            f"{block}mlp.c_proj", (width, 4 * width)
        )
    return {"conditioner.embedders.1.model." + key: shape for key, shape in shapes.items()}


def motion_tensors(table_rows: int) -> dict[str, Tensor]:
    """A motion module for the checkpoint in AnimateDiff's spelling: 32 rows for the SDXL beta, 24 for HotShot-XL."""
    config = MotionModuleConfig(
        down_channels=WIDTHS, up_channels=WIDTHS[::-1], mid_channels=None, max_length=table_rows
    )
    state = MotionModel(config).state_dict()
    return {key: value if key.endswith(".pe") else fill(key, tuple(value.shape)) for key, value in state.items()}


def _with_bias(name: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
