"""Configurations of a checkpoint's networks, read off the shapes of their tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from motion.models.autoencoder import AutoencoderConfig
from motion.models.clip_text import ClipTextEncoderConfig
from motion.models.clip_vision import ClipImageEncoderConfig
from motion.models.unet import UNetConfig

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

SD1_HEADS = 8
LINEAR_HEAD_CHANNELS = 64
"""Channels of a head in SD2 and SDXL, the families with linear projections around their transformers."""
CLIP_HEAD_CHANNELS = 64
VIT_H_WIDTH = 1280


def derive_unet_config(
    shapes: Shapes, *, num_heads: int | None = None, num_head_channels: int | None = None
) -> UNetConfig:
    """Configuration of a UNet from its shapes, under the keys of `model.diffusion_model.` without that prefix.

    Args:
        shapes: key -> shape.
        num_heads: attention heads, which shapes don't tell; SD1's 8 unless one of the two is given.
        num_head_channels: channels of a head; 64 for UNets with linear projections.

    Raises:
        KeyError: a tensor that the shape is read from is missing.
        ValueError: levels of unequal numbers of blocks, or heads that don't divide the channels.
    """
    base, in_channels = shapes["input_blocks.0.0.weight"][:2]
    widths, blocks, depths = _unet_levels(shapes)
    if len(set(blocks)) != 1 or any(width % base for width in widths):
        raise ValueError(f"Levels of {blocks} residual blocks and {widths} channels are no UNet of a known layout.")
    use_linear = len(shapes["middle_block.1.proj_in.weight"]) == 2
    if num_heads is None and num_head_channels is None:
        num_head_channels = LINEAR_HEAD_CHANNELS if use_linear else None
    divisor = num_head_channels or num_heads or SD1_HEADS
    if any(width % divisor for width, depth in zip(widths, depths, strict=True) if depth):
        raise ValueError(f"Attention of {widths} channels can't be split into heads by {divisor}.")
    return UNetConfig(
        in_channels=in_channels,
        out_channels=shapes["out.2.weight"][0],
        model_channels=base,
        channel_mult=tuple(width // base for width in widths),
        num_res_blocks=blocks[0],
        transformer_depth=tuple(depths),
        mid_transformer_depth=_count(shapes, r"middle_block\.1\.transformer_blocks\.(\d+)\."),
        num_heads=num_heads or SD1_HEADS,
        num_head_channels=num_head_channels,
        context_dim=shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        use_linear=use_linear,
        adm_in_channels=shapes["label_emb.0.0.weight"][1] if "label_emb.0.0.weight" in shapes else None,
    )


def _unet_levels(shapes: Shapes) -> tuple[list[int], list[int], list[int]]:
    """Width, number of residual blocks and transformer depth of each level, on the way down."""
    widths, blocks, depths = [0], [0], [0]
    for index in range(1, _count(shapes, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            widths, blocks, depths = [*widths, 0], [*blocks, 0], [*depths, 0]
            continue
        widths[-1] = shapes[f"input_blocks.{index}.0.in_layers.2.weight"][0]
        blocks[-1] += 1
        depths[-1] = _count(shapes, rf"input_blocks\.{index}\.1\.transformer_blocks\.(\d+)\.")
    return widths, blocks, depths


def derive_autoencoder_config(shapes: Shapes) -> AutoencoderConfig:
    """Configuration of an autoencoder from its shapes, under the keys of `first_stage_model.` without that prefix.

    SVD's, which has no convolution between latents and decoder, is read from the one behind the encoder.

    Raises:
        KeyError: a tensor that the shape is read from is missing.
        ValueError: widths that are no multiples of the first one.
    """
    base, in_channels = shapes["encoder.conv_in.weight"][:2]
    # From the decoder, which has a residual block more per level: small encoders may have none.
    levels = range(_count(shapes, r"decoder\.up\.(\d+)\."))
    widths = [shapes[f"decoder.up.{level}.block.0.conv1.weight"][0] for level in levels]
    if any(width % base for width in widths):
        raise ValueError(f"Levels of {widths} channels are no autoencoder of a known layout.")
    has_both = "post_quant_conv.weight" in shapes
    return AutoencoderConfig(
        ch=base,
        ch_mult=tuple(width // base for width in widths),
        num_res_blocks=_count(shapes, r"decoder\.up\.0\.block\.(\d+)\.") - 1,
        z_channels=shapes["decoder.conv_in.weight"][1],
        in_channels=in_channels,
        out_ch=shapes["decoder.conv_out.weight"][0],
        embed_dim=shapes["post_quant_conv.weight"][1] if has_both else shapes["quant_conv.weight"][0] // 2,
    )


def derive_text_encoder_config(shapes: Shapes, *, hidden_act: str = "quick_gelu") -> ClipTextEncoderConfig:
    """Configuration of a CLIP text encoder from its shapes, under keys that begin with "transformer.text_model.".

    Every CLIP has heads of 64 channels; a narrower encoder has one head.

    Args:
        shapes: key -> shape.
        hidden_act: activation, which shapes don't tell.

    Raises:
        KeyError: a tensor that the shape is read from is missing.
        ValueError: heads that don't divide the channels.
    """
    prefix = "transformer.text_model."
    vocabulary, hidden = shapes[prefix + "embeddings.token_embedding.weight"]
    return ClipTextEncoderConfig(
        vocabulary_size=vocabulary,
        hidden_size=hidden,
        num_layers=_count(shapes, r"transformer\.text_model\.encoder\.layers\.(\d+)\."),
        num_heads=max(1, hidden // CLIP_HEAD_CHANNELS),
        intermediate_size=shapes[prefix + "encoder.layers.0.mlp.fc1.weight"][0],
        max_positions=shapes[prefix + "embeddings.position_embedding.weight"][0],
        hidden_act=hidden_act,
        projection_size=shapes.get("transformer.text_projection.weight", (None,))[0],
    )


def derive_image_encoder_config(shapes: Shapes, *, num_heads: int | None = None) -> ClipImageEncoderConfig:
    """Configuration of a CLIP image encoder from its shapes, under keys that begin with "transformer.vision_model.".

    Args:
        shapes: key -> shape.
        num_heads: attention heads, which shapes don't tell; None means ViT-H/14's 16 for its width, and heads of 64
            channels for others.

    Raises:
        KeyError: a tensor that the shape is read from is missing.
        ValueError: heads that don't divide the channels.
    """
    prefix = "transformer.vision_model."
    hidden, _, patch, _ = shapes[prefix + "embeddings.patch_embedding.weight"]
    if num_heads is None:
        known = hidden == VIT_H_WIDTH
        num_heads = ClipImageEncoderConfig.num_heads if known else max(1, hidden // CLIP_HEAD_CHANNELS)
    return ClipImageEncoderConfig(
        hidden_size=hidden,
        num_layers=_count(shapes, r"transformer\.vision_model\.encoder\.layers\.(\d+)\."),
        num_heads=num_heads,
        intermediate_size=shapes[prefix + "encoder.layers.0.mlp.fc1.weight"][0],
        image_size=patch * math.isqrt(shapes[prefix + "embeddings.position_embedding.weight"][0] - 1),
        patch_size=patch,
        projection_size=shapes["transformer.visual_projection.weight"][0],
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that `pattern` finds at the beginning of a key; 0 where it finds none."""
    match = re.compile(pattern).match
    return max((int(found[1]) + 1 for found in map(match, shapes) if found), default=0)
