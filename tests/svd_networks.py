"""SVD's networks at the width of the goldens, with the goldens' weights, and small files of them."""

from __future__ import annotations

import dataclasses

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL, Encoder
from motion.models.clip_vision import ClipImageEncoderConfig
from motion.models.temporal_decoder import ClipDecoder, LatentEncoder
from motion.models.unet import UNetConfig
from motion.models.video_unet import VideoUNet
from tests.weights_recipe import fill, fill_module

TINY_UNET = UNetConfig(
    in_channels=8, model_channels=32, num_head_channels=16, context_dim=48, use_linear=True, adm_in_channels=48
)
TINY_AUTOENCODER = AutoencoderConfig(ch=32)
TINY_CLIP = ClipImageEncoderConfig(
    hidden_size=64, num_layers=3, num_heads=4, intermediate_size=256, image_size=56, projection_size=48
)
UNET_PREFIX = "model.diffusion_model."
FIRST_STAGE_PREFIX = "first_stage_model."
CONDITION_PREFIX = "conditioner.embedders.3.encoder."
CLIP_PREFIX = "conditioner.embedders.0.open_clip.model.visual."


def tiny_unet(config=TINY_UNET):
    unet = VideoUNet(config).eval().requires_grad_(False)
    fill_module(unet, UNET_PREFIX)
    return unet


def tiny_decoder():
    decoder = ClipDecoder(TINY_AUTOENCODER).eval().requires_grad_(False)
    fill_module(decoder, FIRST_STAGE_PREFIX)
    return decoder


def tiny_encoder():
    encoder = LatentEncoder(TINY_AUTOENCODER).eval().requires_grad_(False)
    fill_module(encoder, CONDITION_PREFIX)
    return encoder


SMALL_UNET = dataclasses.replace(TINY_UNET, channel_mult=(1, 2), transformer_depth=(1, 0), num_res_blocks=1)
SMALL_AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1, 2), num_res_blocks=1)
SMALL_CLIP = dataclasses.replace(TINY_CLIP, num_layers=1, num_heads=1)
"""Networks of two levels: latents have half a picture's sides, and a quarter of them must be whole."""
TEXT_LEFTOVERS = {
    "positional_embedding": (77, 48),
    "text_projection": (48, 48),
    "logit_scale": (),
    "token_embedding.weight": (100, 48),
    "ln_final.weight": (48,),
    "ln_final.bias": (48,),
}


def small_tensors(decodes_clips=True):
    """A whole single file of the small networks, unused tensors included, with the recipe's weights."""
    decoder = ClipDecoder if decodes_clips else AutoencoderKL
    shapes = {
        **network_shapes(VideoUNet(SMALL_UNET), UNET_PREFIX),
        **network_shapes(Encoder(SMALL_AUTOENCODER), FIRST_STAGE_PREFIX + "encoder."),
        **network_shapes(decoder(SMALL_AUTOENCODER), FIRST_STAGE_PREFIX),
        **network_shapes(AutoencoderKL(SMALL_AUTOENCODER), CONDITION_PREFIX),
        **{CLIP_PREFIX + key: shape for key, shape in open_clip_shapes(SMALL_CLIP).items()},
        **{CLIP_PREFIX.removesuffix("visual.") + key: shape for key, shape in TEXT_LEFTOVERS.items()},
    }
    return {key: fill(key, shape) for key, shape in shapes.items()}


def network_shapes(network: nn.Module, prefix):
    return {prefix + key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def open_clip_shapes(config):
    """Keys and shapes of OpenCLIP's picture tower."""
    width, patches = config.hidden_size, (config.image_size // config.patch_size) ** 2
    shapes = {
        "class_embedding": (width,),
        "positional_embedding": (patches + 1, width),
        "proj": (width, config.projection_size),
        "conv1.weight": (width, 3, config.patch_size, config.patch_size),
    }
    vectors = ["ln_pre", "ln_post"]
    for index in range(config.num_layers):
        block = f"transformer.resblocks.{index}."
        vectors += [block + "ln_1", block + "ln_2"]
        shapes |= {block + "attn.in_proj_weight": (3 * width, width), block + "attn.in_proj_bias": (3 * width,)}
        sizes = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
        for name, shape in sizes.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
    return shapes | {f"{name}.{kind}": (width,) for name in vectors for kind in ("weight", "bias")}


def write_yaml(path, num_frames=4, **unet):
    """The yaml beside `path`, in sgm's form, for the small networks' heads."""
    guider = {"params": {"guider_config": {"params": {"num_frames": num_frames}}}}
    network = {"params": {"num_head_channels": 16, **unet}}
    scaling = {"params": {"scaling_config": {"target": "sgm.modules.diffusionmodules.denoiser_scaling.VScaling"}}}
    params = {"scale_factor": 0.18215, "network_config": network, "sampler_config": guider, "denoiser_config": scaling}
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"params": params}}))


def write_small_file(path, tensors=None, dtype=torch.float32):
    """A single file of the small networks with its yaml."""
    tensors = small_tensors() if tensors is None else tensors
    save_file({key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}, path)
    write_yaml(path)
    return path
