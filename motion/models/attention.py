"""Multi-head attention and the gated feed-forward that the UNet and the motion modules share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from motion.models.cast_layers import CastLinear

MAX_ATTENTION_ROWS = 65_535
"""Most (batch x heads) rows of one attention call: the largest y and z extent of a CUDA grid."""


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Scaled dot-product attention of every head, softmax(q kᵀ / √d) v.

    Temporal attention has one batch row per pixel, more than a CUDA kernel takes at once, so the batch is cut into
    nearly equal parts of at most `MAX_ATTENTION_ROWS` (batch x heads) rows. Rows never see one another: the result is
    that of one call.

    Args:
        query: `b n (heads d)`.
        key: `b m (heads d)`.
        value: `b m (heads d)`.
        num_heads: heads that the last axis holds.

    Returns:
        `b n (heads d)`.
    """
    query, key, value = (rearrange(x, "b n (h d) -> b h n d", h=num_heads) for x in (query, key, value))
    rows = query.shape[0]
    num_parts = -(-rows // max(1, MAX_ATTENTION_ROWS // num_heads))
    if num_parts <= 1:
        mixed = F.scaled_dot_product_attention(query, key, value)
    else:
        parts = zip(query.chunk(num_parts), key.chunk(num_parts), value.chunk(num_parts), strict=True)
        mixed = torch.cat([F.scaled_dot_product_attention(q, k, v) for q, k, v in parts])
    joined: Tensor = rearrange(mixed, "b h n d -> b n (h d)")
    return joined


class CrossAttention(nn.Module):
    """Multi-head attention from tokens to a context, or to themselves where there is none.

    Args:
        query_dim: channels of the tokens.
        num_heads: number of heads.
        head_dim: channels of one head.
        context_dim: channels of the context; None for self-attention.
    """

    def __init__(self, query_dim: int, num_heads: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        inner_dim = num_heads * head_dim
        context_dim = query_dim if context_dim is None else context_dim
        self.num_heads = num_heads
        self.to_q = CastLinear(query_dim, inner_dim, bias=False)
        self.to_k = CastLinear(context_dim, inner_dim, bias=False)
        self.to_v = CastLinear(context_dim, inner_dim, bias=False)
        self.to_out = nn.Sequential(CastLinear(inner_dim, query_dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens `b n c` and context `b m k` to `b n c`."""
        context = x if context is None else context
        mixed = attend(self.to_q(x), self.to_k(context), self.to_v(context), self.num_heads)
        out: Tensor = self.to_out(mixed)
        return out

    def from_one_token(self, context: Tensor) -> Tensor:
        """What every token gets of a context `b 1 k`, `b 1 c`: the softmax over one token is 1 whatever the query."""
        out: Tensor = self.to_out(self.to_v(context))
        return out


class GEGLU(nn.Module):
    """Linear layer gated by a GELU of its second half (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = CastLinear(in_dim, 2 * out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """`… in_dim` to `… out_dim`."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        gated: Tensor = value * F.gelu(gate)
        return gated


class FeedForward(nn.Module):
    """GEGLU to four times the width and back."""

    def __init__(self, dim: int, out_dim: int | None = None) -> None:
        super().__init__()
        inner_dim = 4 * dim
        # The middle slot is a dropout in the networks that wrote the public files, where the last layer is `net.2`.
        self.net = nn.Sequential(GEGLU(dim, inner_dim), nn.Identity(), CastLinear(inner_dim, out_dim or dim))

    def forward(self, x: Tensor) -> Tensor:
        """`… dim` to `… out_dim`."""
        out: Tensor = self.net(x)
        return out
