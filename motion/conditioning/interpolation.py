"""Between two prompts' conditionings: what a frame gets that stands between two keyframes."""

from __future__ import annotations

import torch
from torch import Tensor

_NEARLY_PARALLEL = 0.9995


def padded(tokens: Tensor, length: int, empty: Tensor) -> Tensor:
    """Tokens `n d` with the encoded empty prompt `m d` appended until they are `length`.

    Web UIs encode a long prompt in parts of equal length, so that the empty prompt's is one such part; its beginning
    is taken where less than a whole one is missing.
    """
    missing = length - tokens.shape[0]
    if missing <= 0:
        return tokens
    repeats = -(-missing // empty.shape[0])
    return torch.cat([tokens, empty.to(tokens).repeat(repeats, 1)[:missing]])


def interpolated(first: Tensor, second: Tensor, share: float, method: str) -> Tensor:
    """Between two tensors of one shape, `… d`, vector by vector along the last axis.

    What is equal in both stays so to the bit: the sizes in SDXL's pooled vector, and rows by which other extensions
    mark a prompt. sd-webui-animatediff slerps all tokens of a prompt as one vector instead, by one angle; here each
    token turns by its own, which keeps the length where both have the same.

    Args:
        first: where `share` is 0.
        second: where `share` is 1.
        share: 0 to 1.
        method: "lerp", or "slerp" (Shoemake 1985), which for nearly parallel and for zero vectors is lerp.

    Returns:
        A tensor of `first`'s dtype; the sum is in float32.
    """
    if share == 0:
        return first
    if share == 1:
        return second
    a, b = first.float(), second.float()
    straight = a + (b - a) * share
    if method == "slerp":
        differs = a != b
        curved = _slerp(a * differs, b * differs, share)
        straight = torch.where(differs & curved.isfinite(), curved, straight)
    return straight.to(first.dtype)


def _slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Spherical interpolation along the last axis; NaN where lerp has to do."""
    cosine = (a * b).sum(-1, keepdim=True) / (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True))
    angle = torch.where(cosine.abs() > _NEARLY_PARALLEL, torch.nan, cosine).acos()
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
