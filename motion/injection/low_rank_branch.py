"""A low-rank branch beside a linear layer, as a forward hook: the layer's own weights stay untouched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motion.checkpoints.low_rank import LowRankDelta
from motion.errors import InjectionError

FramesOfCall = Callable[[int], Sequence[int]]
"""Number of frames in the tokens of the call that runs now -> the frame of the clip that each of them is."""


class FrameWeights:
    """One weight per frame of a clip, for the frames that a call holds.

    Args:
        weights: weight of each frame of the clip.
        frames_of_call: which frames a call holds; None where every call holds the clip from its first frame on.
    """

    def __init__(self, weights: Sequence[float], frames_of_call: FramesOfCall | None) -> None:
        self._weights = tuple(weights)
        self._frames_of_call = frames_of_call
        self._last: tuple[Any, Tensor] | None = None

    def of(self, tokens: Tensor) -> Tensor | None:
        """Weights for tokens `(b h w) f c` as `1 f 1`, of their dtype and on their device; None where all are zero.

        Raises:
            InjectionError: the tokens have another number of frames than the call, or the clip lacks one of them.
        """
        num_frames = tokens.shape[1]
        frames = range(num_frames) if self._frames_of_call is None else self._frames_of_call(num_frames)
        if len(frames) != num_frames or not all(0 <= frame < len(self._weights) for frame in frames):
            raise InjectionError(
                f"A motion LoRA with a frame range got {num_frames} frames as {list(frames)[:8]}; the clip has "
                f"{len(self._weights)}. Use the LoRA without a range, and please report this."
            )
        values = tuple(self._weights[frame] for frame in frames)
        if not any(values):
            return None
        wanted = (values, tokens.device, tokens.dtype)
        if self._last is None or self._last[0] != wanted:  # all layers of a call ask for the same
            self._last = wanted, torch.tensor(values, device=tokens.device, dtype=tokens.dtype)[:, None]  # f 1
        return self._last[1]


class LowRankBranch:
    """Forward hook that turns y of a linear layer into y + strength · scale · up(down(x)).

    The factors follow the layer's output to its device and dtype, in which the layer computed: under autocast or with
    weights that a host casts per layer, neither its input nor its weights tell.

    Args:
        delta: the change.
        strength: factor of the branch.
        frames: weights per frame besides, for layers whose tokens are `(b h w) f c`.
    """

    def __init__(self, delta: LowRankDelta, strength: float, frames: FrameWeights | None = None) -> None:
        self._delta = delta
        self._factor = strength * delta.scale
        self._frames = frames
        self._cast: tuple[Tensor, Tensor] | None = None

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The hook."""
        weights = None if self._frames is None else self._frames.of(output)
        if self._frames is not None and weights is None:
            return output
        down, up = self._factors_like(output)
        branch = F.linear(F.linear(args[0].to(output.dtype), down), up)
        return output + (branch if weights is None else branch * weights)

    def _factors_like(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """`down` and factor · `up`; the product is taken in float32, once."""
        if self._cast is None or self._cast[0].device != output.device or self._cast[0].dtype != output.dtype:
            up = self._factor * self._delta.up.float()
            self._cast = self._delta.down.to(output), up.to(output)
        return self._cast
