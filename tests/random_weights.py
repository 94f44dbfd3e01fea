"""Small random weights in the layout of the real files, seeded, for tests that need whole files and no pictures.

They know nothing of pictures, but each network does its part. The UNet's answer holds its own input, as a noise
prediction must, so that sampling leads from noise to soft shapes. The decoder's kernels are smooth. The temporal
attention takes neighbouring frames from each frame, so that a clip from one starting noise drifts slowly. Residual
branches are gentle, and nothing overflows in half precision.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor, nn

from motion.checkpoints.stable_diffusion_writing import checkpoint_yaml
from motion.checkpoints.text_folder import CLIP_NAME
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.temporal_transformer import sinusoidal_table
from motion.models.unet import UNetConfig, UNetModel

UNET = UNetConfig(model_channels=32, num_heads=2, context_dim=64)
AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1, 1, 2, 2), num_res_blocks=1)
TEXT_ENCODER = ClipTextEncoderConfig(hidden_size=64, num_layers=4, num_heads=1, intermediate_size=256)
MOTION_MODULE = MotionModuleConfig(
    down_channels=(32, 64, 128, 128), up_channels=(128, 128, 64, 32), mid_channels=128, max_length=32
)

# Latents x travel through the UNet as channels +x and -x, since silu(x) - silu(-x) = x.
_CARRIED = 2 * UNET.in_channels
_NOISE_GAIN = 1.2
_PAINT_GAIN = 0.3
# What the decoder is given has a standard deviation of 1 / 0.18215.
_LATENT_SCALE = 0.18

_SELECTIVE = MappingProxyType(
    {
        ".proj_in.weight": 1.0,
        ".attention_blocks.0.to_q.weight": 2.0,
        ".attention_blocks.0.to_k.weight": 2.0,
        ".attention_blocks.0.to_v.weight": 1.0,
        ".attention_blocks.0.to_out.0.weight": -1.0,
        ".proj_out.weight": -0.6,
    }
)

Tensors = dict[str, Tensor]


def checkpoint_tensors() -> Tensors:
    """A Stable Diffusion 1.5 checkpoint of 32 instead of 320 channels, fp16."""
    with torch.device("meta"):
        parts = (
            ("model.diffusion_model.", UNetModel(UNET), _unet_tensor),
            ("first_stage_model.", AutoencoderKL(AUTOENCODER), _autoencoder_tensor),
            ("cond_stage_model.", ClipTextEncoder(TEXT_ENCODER), _text_tensor),
        )
    return {
        prefix + key: value for prefix, network, fill in parts for key, value in _filled(network, prefix, fill).items()
    }


def motion_module_tensors() -> Tensors:
    """A motion module in the layout of mm_sd_v15_v2 that fits the checkpoint, fp16."""
    with torch.device("meta"):
        network = MotionModel(MOTION_MODULE)
    return _filled(network, "", _motion_tensor)


def checkpoint_config() -> str:
    """What the checkpoint's shapes don't say, in the form of the `<name>.yaml` beside a checkpoint."""
    return checkpoint_yaml(UNET, AUTOENCODER, CLIP_NAME)


def _filled(network: nn.Module, prefix: str, fill: Callable[[str, torch.Size], Tensor]) -> Tensors:
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    return {key: fill(prefix + key, shape).to(torch.float16).contiguous() for key, shape in shapes.items()}


def _normal(key: str, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Normal numbers of `key`, of a variance that keeps that of a layer's input."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn(tuple(shape), generator=generator) / math.sqrt(math.prod(shape[1:]))


def _plain(key: str, shape: torch.Size) -> Tensor:
    if len(shape) >= 2:
        return _normal(key, shape)
    return torch.ones(shape) if key.endswith(".weight") else torch.zeros(shape)


def _smooth(key: str, shape: torch.Size) -> Tensor:
    """3x3 kernels that blur more than they draw, without a mean, so that no colour wins by itself."""
    binomial = torch.tensor([1.0, 2.0, 1.0])
    blur = torch.outer(binomial, binomial)
    values: Tensor = blur / blur.norm() * _normal(key, (*shape[:2], 1, 1)) + 0.3 * _normal(key + "/grain", shape)
    return values - values.mean(dim=1, keepdim=True)


def _unet_tensor(key: str, shape: torch.Size) -> Tensor:
    name = key.removeprefix("model.diffusion_model.")
    if name == "input_blocks.0.0.weight":
        return _carrying_in(_normal(key, shape))
    if name == "output_blocks.11.0.skip_connection.weight":
        return _carrying_across(_normal(key, shape))
    if name == "out.2.weight":
        return _carrying_out(_PAINT_GAIN * _smooth(key, shape))
    values = _plain(key, shape)
    if name.endswith("out_layers.3.weight"):
        values *= 0.5
    elif "emb_layers" in name or name.endswith("proj_out.weight"):
        values *= 0.7
    if name in ("output_blocks.11.0.out_layers.3.weight", "output_blocks.11.1.proj_out.weight"):
        values[:_CARRIED] = 0
    return values


def _carrying_in(values: Tensor) -> Tensor:
    values[:_CARRIED] = 0
    for channel in range(UNET.in_channels):
        values[channel, channel, 1, 1] = 1
        values[UNET.in_channels + channel, channel, 1, 1] = -1
    return values


def _carrying_across(values: Tensor) -> Tensor:
    """The last block joins what it was given (first half) and what the first block made (second half)."""
    before = values.shape[1] - UNET.model_channels
    values[:_CARRIED] = 0
    values[_CARRIED:, before:] = 0
    values[:_CARRIED, before : before + _CARRIED, 0, 0] = torch.eye(_CARRIED)
    return values


def _carrying_out(values: Tensor) -> Tensor:
    values[:, :_CARRIED] = 0
    for channel in range(UNET.out_channels):
        values[channel, channel, 1, 1] = _NOISE_GAIN
        values[channel, UNET.in_channels + channel, 1, 1] = -_NOISE_GAIN
    return values


def _autoencoder_tensor(key: str, shape: torch.Size) -> Tensor:
    name = key.removeprefix("first_stage_model.")
    if name == "post_quant_conv.weight":
        return torch.eye(shape[0]).reshape(shape) * _LATENT_SCALE
    if name == "quant_conv.weight":
        values = torch.eye(shape[0]).reshape(shape) / _LATENT_SCALE
        values[shape[0] // 2 :] = 0
        return values
    if name == "quant_conv.bias":  # the second half is the logarithm of the variance
        return torch.cat([torch.zeros(shape[0] // 2), torch.full((shape[0] // 2,), -10.0)])
    drawing = name.startswith("decoder.") and len(shape) == 4 and shape[-1] == 3
    values = _smooth(key, shape) if drawing else _plain(key, shape)
    gentle = name.endswith(("conv2.weight", "proj_out.weight")) or name == "decoder.conv_out.weight"
    return 0.4 * values if gentle else values


def _text_tensor(key: str, shape: torch.Size) -> Tensor:
    values = _plain(key, shape)
    return 0.7 * values if key.endswith(("out_proj.weight", "fc2.weight")) else values


def _motion_tensor(key: str, shape: torch.Size) -> Tensor:
    """Attention 0 looks for near positions and takes what it finds off the frame; attention 1 is left to chance."""
    if key.endswith(".pe"):
        return sinusoidal_table(shape[1], shape[2])
    for name, gain in _SELECTIVE.items():
        if key.endswith(name):
            return gain * torch.eye(shape[0])
    values = _plain(key, shape)
    return 1.5 * values if key.endswith((".1.to_q.weight", ".1.to_k.weight")) else values
