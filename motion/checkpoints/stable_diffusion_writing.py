"""A Stable Diffusion 1 checkpoint from its networks: tensors of the single file, and the `<name>.yaml` beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from motion.checkpoints.stable_diffusion import AUTOENCODER_PREFIX, UNET_PREFIX
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder
from motion.models.unet import UNetConfig, UNetModel

_TEXT_PREFIX = "cond_stage_model."
_YAML = """model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    timesteps: 1000
    first_stage_key: jpg
    cond_stage_key: txt
    image_size: 64
    channels: {unet.in_channels}
    cond_stage_trainable: false
    conditioning_key: crossattn
    scale_factor: 0.18215
    use_ema: false
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: {unet.in_channels}
        out_channels: {unet.out_channels}
        model_channels: {unet.model_channels}
        attention_resolutions: {attention}
        num_res_blocks: {unet.num_res_blocks}
        channel_mult: {widths}
        num_heads: {unet.num_heads}
        use_spatial_transformer: true
        transformer_depth: 1
        context_dim: {unet.context_dim}
        use_checkpoint: false
        legacy: false
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: {autoencoder.embed_dim}
        ddconfig:
          double_z: true
          z_channels: {autoencoder.z_channels}
          resolution: 256
          in_channels: {autoencoder.in_channels}
          out_ch: {autoencoder.out_ch}
          ch: {autoencoder.ch}
          ch_mult: {autoencoder_widths}
          num_res_blocks: {autoencoder.num_res_blocks}
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        version: {text_folder}
"""


def checkpoint_tensors(
    unet: UNetModel, autoencoder: AutoencoderKL, text_encoder: ClipTextEncoder, dtype: torch.dtype = torch.float16
) -> dict[str, Tensor]:
    """Tensors of a single-file checkpoint, on the CPU in `dtype`."""
    parts: tuple[tuple[str, nn.Module], ...] = (
        (UNET_PREFIX, unet),
        (AUTOENCODER_PREFIX, autoencoder),
        (_TEXT_PREFIX, text_encoder),
    )
    return {
        prefix + key: value.detach().to("cpu", dtype).contiguous()
        for prefix, network in parts
        for key, value in network.state_dict().items()
    }


def checkpoint_yaml(unet: UNetConfig, autoencoder: AutoencoderConfig, text_folder: str) -> str:
    """What a checkpoint's shapes don't say, in the form that web UIs read.

    Args:
        unet: shape of the UNet.
        autoencoder: shape of the autoencoder.
        text_folder: `version` of the text encoder: a path, or `motion.checkpoints.text_folder.FOLDER_PLACEHOLDER`.
    """
    attention = [2**level for level, depth in enumerate(unet.transformer_depth) if depth]
    return _YAML.format(
        unet=unet,
        attention=attention,
        widths=list(unet.channel_mult),
        autoencoder=autoencoder,
        autoencoder_widths=list(autoencoder.ch_mult),
        text_folder=text_folder,
    )
