"""What transformers' two CLIP towers have in common, so that our files fill them."""

from __future__ import annotations

import torch
from torch import nn


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Refuse heads of unequal sizes.

    Raises:
        ValueError: `num_heads` doesn't divide `hidden_size`.
    """
    if hidden_size % num_heads:
        raise ValueError(
            f"`hidden_size` must be a multiple of `num_heads`, got {hidden_size} and {num_heads}. "
            "Check the file's shapes."
        )


def number_positions(embeddings: nn.Module, count: int) -> None:
    """Give the embeddings of a tower their table of positions, int64 `1 count`.

    It holds indices and is no weight: real also where the tower is built on the meta device to be filled later.
    """
    positions = torch.arange(count, device="cpu").unsqueeze(0)
    embeddings.register_buffer("position_ids", positions, persistent=False)
