"""The networks of Stable Video Diffusion, loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from motion.checkpoints.svd_file import SvdConfig, open_svd
from motion.models.clip_vision import ClipImageEncoder
from motion.models.precision import Precision
from motion.models.temporal_decoder import ClipDecoder, FrameDecoder, LatentEncoder
from motion.models.video_unet import VideoUNet


@dataclass(frozen=True)
class SvdNetworks:
    """The networks of one set of weights.

    Attributes:
        config: their shapes.
        unet: video UNet.
        image_encoder: CLIP.
        encoder: pictures to latents.
        decoder: latents to frames.
    """

    config: SvdConfig
    unet: VideoUNet
    image_encoder: ClipImageEncoder
    encoder: LatentEncoder
    decoder: ClipDecoder | FrameDecoder


def load_networks(path: str | Path, precision: Precision, home: torch.device) -> SvdNetworks:
    """Load weights.

    Args:
        path: single file or diffusers folder.
        precision: number formats.
        home: where the networks wait for their turn.

    Raises:
        CheckpointError: it can't be used.
    """
    with open_svd(path) as svd:
        return SvdNetworks(
            svd.config,
            svd.load_unet(device=home, dtype=precision.dtype),
            svd.load_image_encoder(device=home, dtype=precision.dtype),
            svd.load_encoder(device=home, dtype=precision.dtype_vae),
            svd.load_decoder(device=home, dtype=precision.dtype_vae),
        )


def pixels_per_latent(config: SvdConfig) -> int:
    """Pixels of a frame's side over latents of it."""
    return int(2 ** (len(config.autoencoder.ch_mult) - 1))


def size_multiple(config: SvdConfig) -> int:
    """Pixels that the sides of a clip must be multiples of."""
    return int(pixels_per_latent(config) * 2 ** (len(config.unet.channel_mult) - 1))
