"""CLIP's text encoders: OpenAI's ViT-L/14 (SD1 and SDXL) and OpenCLIP's ViT-bigG/14 (SDXL).

Both are transformers' CLIP text model. OpenCLIP's keys are mapped to it (checkpoints/sdxl_text.py) instead of having a
network of their own: the arithmetic is the same but for the activation, and LoRA files for SDXL name the layers of both
encoders as transformers does, with q, k and v apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from motion.models.clip_layers import check_heads, number_positions


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
        projection_size: channels of the projected vector of a whole text; None for weights without that projection.

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
    projection_size: int | None = None

    def __post_init__(self) -> None:
        check_heads(self.hidden_size, self.num_heads)


class ClipTextEncoder(nn.Module):
    """Token ids to one vector per token. State-dict keys are SD1's `cond_stage_model.*` without that prefix."""

    def __init__(self, config: ClipTextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        network = CLIPTextModel if config.projection_size is None else CLIPTextModelWithProjection
        self.transformer = network(
            CLIPTextConfig(
                vocab_size=config.vocabulary_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=config.intermediate_size,
                max_position_embeddings=config.max_positions,
                hidden_act=config.hidden_act,
                projection_dim=config.projection_size or config.hidden_size,
            )
        )
        number_positions(self.transformer.text_model.embeddings, config.max_positions)

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
        self._check_layer(clip_skip)
        text_model = self.transformer.text_model
        outputs = text_model(input_ids=token_ids, output_hidden_states=clip_skip > 1)
        if clip_skip == 1:
            last: Tensor = outputs.last_hidden_state
            return last
        normalised: Tensor = text_model.final_layer_norm(outputs.hidden_states[-clip_skip])
        return normalised

    def encode_for_sdxl(self, token_ids: Tensor, clip_skip: int = 2) -> tuple[Tensor, Tensor | None]:
        """Encode texts as SDXL was trained on them: a layer's plain output (arXiv:2307.01952, section 2.1).

        Args:
            token_ids: int64 `b n`, as for `forward`.
            clip_skip: layer to take, counted from the end; SDXL takes the last but one.

        Returns:
            `b n hidden_size` before any final norm; and `b projection_size`, the normed last layer at the end token
            (the highest id of a text), projected, or None for weights without a projection.

        Raises:
            ValueError: `clip_skip` is not 1 to `num_layers`.
        """
        self._check_layer(clip_skip)
        outputs = self.transformer.text_model(input_ids=token_ids, output_hidden_states=True)
        hidden: Tensor = outputs.hidden_states[-clip_skip]
        if self.config.projection_size is None:
            return hidden, None
        rows = torch.arange(len(token_ids), device=token_ids.device)
        end: Tensor = outputs.last_hidden_state[rows, token_ids.argmax(dim=-1)]
        pooled: Tensor = self.transformer.text_projection(end)
        return hidden, pooled

    def _check_layer(self, clip_skip: int) -> None:
        if not 1 <= clip_skip <= self.config.num_layers:
            raise ValueError(
                f"`clip_skip` must be 1 to {self.config.num_layers}, the layers of this text encoder, "
                f"got {clip_skip}. Lower it."
            )
