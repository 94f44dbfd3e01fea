"""CLIP's image encoder: OpenCLIP's ViT-H/14, which tells Stable Video Diffusion what is in the picture.

It is transformers' CLIP vision model with its projection, filled from OpenCLIP's keys through a map
(checkpoints/open_clip_keys.py), as the text encoders are: the arithmetic is the same, hosts have transformers, and
diffusers' folders hold it under transformers' keys, so that they load as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from motion.models.clip_layers import check_heads, number_positions


@dataclass(frozen=True)
class ClipImageEncoderConfig:
    """Shape of a CLIP image encoder; the defaults are those of OpenCLIP's ViT-H/14.

    Attributes:
        hidden_size: channels of a token.
        num_layers: transformer layers.
        num_heads: attention heads.
        intermediate_size: channels inside a layer's feed-forward.
        image_size: sides of the pictures, pixels.
        patch_size: sides of the patch that is one token, pixels.
        projection_size: channels of the vector of a picture.
        hidden_act: activation, "gelu" for OpenCLIP's weights.

    Raises:
        ValueError: `num_heads` doesn't divide `hidden_size`.
    """

    hidden_size: int = 1280
    num_layers: int = 32
    num_heads: int = 16
    intermediate_size: int = 5120
    image_size: int = 224
    patch_size: int = 14
    projection_size: int = 1024
    hidden_act: str = "gelu"

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)


class ClipImageEncoder(nn.Module):
    """Pictures to one vector each. State-dict keys are transformers' under "transformer."."""

    def __init__(self, config: ClipImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                image_size=config.image_size,
                patch_size=config.patch_size,
                projection_dim=config.projection_size,
                hidden_act=config.hidden_act,
            )
        )
        num_patches = (config.image_size // config.patch_size) ** 2
        number_positions(self.transformer.vision_model.embeddings, num_patches + 1)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which the network computes."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures `b 3 image_size image_size` to `b projection_size`, in the weights' dtype."""
        embeddings: Tensor = self.transformer(pixel_values=x.to(self.dtype)).image_embeds
        return embeddings
