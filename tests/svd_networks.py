"""SVD's networks at the width of the goldens, with the goldens' weights."""

from __future__ import annotations

from motion.models.autoencoder import AutoencoderConfig
from motion.models.clip_vision import ClipImageEncoderConfig
from motion.models.temporal_decoder import ClipDecoder, LatentEncoder
from motion.models.unet import UNetConfig
from motion.models.video_unet import VideoUNet
from tests.weights_recipe import fill_module

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
