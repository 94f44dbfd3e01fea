"""CLIP's text encoder, under the keys of `cond_stage_model.*`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel


@dataclass(frozen=True)
class ClipTextEncoderConfig:
    """Shape of a CLIP text encoder; the defaults are those of Stable Diffusion 1's ViT-L/14.

    Attributes:
        vocabulary_size: rows of the token table.
        hidden_size: channels of a token.
        num_layers: transformer layers.
        num_heads: attention heads.
        intermediate_size: channels inside a layer's feed-forward.
        max_positions: tokens of one text, start and end included.
        hidden_act: activation, "quick_gelu" for OpenAI's weights, "gelu" for OpenCLIP's.

    Raises:
        ValueError: `num_heads` doesn't divide `hidden_size`.
    """

    vocabulary_size: int = 49408
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 77
    hidden_act: str = "quick_gelu"

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_heads`, got {self.hidden_size} and {self.num_heads}. "
                "Check the file's shapes."
            )


class ClipTextEncoder(nn.Module):
    """Token ids to one vector per token. State-dict keys are `cond_stage_model.*` without that prefix."""

    def __init__(self, config: ClipTextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=config.vocabulary_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                max_position_embeddings=config.max_positions,
                hidden_act=config.hidden_act,
            )
        )
        # A table of indices, not a weight: real also where the encoder is built on the meta device to be filled later.
        positions = torch.arange(config.max_positions, device="cpu").unsqueeze(0)
        self.transformer.text_model.embeddings.register_buffer("position_ids", positions, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which the network computes."""
        return next(self.parameters()).dtype

    def forward(self, token_ids: Tensor, clip_skip: int = 1) -> Tensor:
        """Encode texts.

        Args:
            token_ids: int64 `b n`, n at most `max_positions`, with start and end.
            clip_skip: layer to stop at, counted from the end: 1 is the last, 2 the last but one.

        Returns:
            `b n hidden_size` in the weights' dtype, after the final layer norm whatever the layer.

        Raises:
            ValueError: `clip_skip` is not 1 to `num_layers`.
        """
        if not 1 <= clip_skip <= self.config.num_layers:
            raise ValueError(
                f"`clip_skip` must be 1 to {self.config.num_layers}, the layers of this text encoder, "
                f"got {clip_skip}. Lower it."
            )
        outputs = self.transformer(input_ids=token_ids, output_hidden_states=clip_skip > 1)
        if clip_skip == 1:
            last: Tensor = outputs.last_hidden_state
            return last
        normalised: Tensor = self.transformer.text_model.final_layer_norm(outputs.hidden_states[-clip_skip])
        return normalised
