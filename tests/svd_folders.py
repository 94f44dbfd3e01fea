"""A small folder of Stable Video Diffusion, written by diffusers and transformers."""

from __future__ import annotations

import diffusers
import torch
import transformers

NUM_FRAMES = 3


def write_weights(model, folder):
    """Give `model` seeded weights that stay tame and save it."""
    generator = torch.Generator().manual_seed(len(model.state_dict()))
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 1.0 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1
            offset = 0.5 if parameter.dim() == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + offset)
    model.eval().requires_grad_(False).save_pretrained(folder)
    return model


def small_folder(folder, num_frames=NUM_FRAMES):
    """Write `unet`, `vae` and `image_encoder` of two levels below `folder`."""
    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        num_attention_heads=(2, 4),
        layers_per_block=2,
        cross_attention_dim=48,
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
        num_frames=num_frames,
    )
    write_weights(unet, folder / "unet")
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=2
    )
    write_weights(vae, folder / "vae")
    clip = transformers.CLIPVisionConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=28,
        patch_size=14,
        projection_dim=48,
        hidden_act="gelu",
    )
    write_weights(transformers.CLIPVisionModelWithProjection(clip), folder / "image_encoder")
    return folder


def small_unet(folder):
    """The folder's UNet in diffusers, with the norms' eps of the original code, which diffusers has in part only."""
    unet = diffusers.UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet").eval().requires_grad_(False)
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-6 if ".attentions." in name else 1e-5
    return unet


def small_vae(folder):
    """The folder's autoencoder in diffusers."""
    vae = diffusers.AutoencoderKLTemporalDecoder.from_pretrained(folder / "vae")
    return vae.eval().requires_grad_(False)
