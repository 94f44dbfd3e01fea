"""What a UNet keeps for its backward pass, counted on small feature maps and reckoned up to larger ones.

Everything that is kept grows with the number of pixels, in a straight line: attention keeps no matrix of all pairs
(Dao et al. 2022, arXiv:2205.14135). So two small runs give the line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from motion.training.activation_checkpoints import unet_blocks

Forward = Callable[[int, int], Tensor]
"""Runs the UNet on latents of (height, width) and gives what a loss is made of; nothing may be checkpointed in it."""


@dataclass(frozen=True)
class ActivationBytes:
    """What one forward pass leaves behind.

    Attributes:
        kept: by all of the UNet.
        inputs: of that, what goes into the blocks: all that checkpoints keep.
        largest_block: what the largest block keeps inside, its input included.
        largest_tensor: the largest single tensor that is made inside a block.
    """

    kept: float
    inputs: float
    largest_block: float
    largest_tensor: float

    def peak(self, *, checkpointed: bool) -> float:
        """Most that a training step holds of it at a time, with the gradients that pass by."""
        passing = 2 * self.largest_tensor
        return passing + (self.inputs + self.largest_block if checkpointed else self.kept)

    def __add__(self, other: ActivationBytes) -> ActivationBytes:
        return ActivationBytes(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def times(self, factor: float) -> ActivationBytes:
        """Each part `factor` times as large."""
        return ActivationBytes(*(factor * value for value in self._values()))

    def _values(self) -> tuple[float, float, float, float]:
        return self.kept, self.inputs, self.largest_block, self.largest_tensor


def reckon_activations(
    unet: nn.Module, weights: Iterable[Tensor], forward: Forward, height: int, width: int
) -> ActivationBytes:
    """What `forward(height, width)` would keep, from two runs on small latents.

    Args:
        unet: an LDM-layout UNet.
        weights: what is there anyway and does not count.
        forward: runs it.
        height: of the latents asked about.
        width: likewise.
    """
    lasting = frozenset(_address(weight) for weight in weights)
    small, large = (count_activations(unet, lasting, partial(forward, 8, size)) for size in (8, 16))
    slope = (large + small.times(-1)).times(1 / 64)
    return small + slope.times(height * width - 64)


def count_activations(unet: nn.Module, lasting: frozenset[int], forward: Callable[[], Tensor]) -> ActivationBytes:
    """Run `forward` once and count what its graph keeps.

    Args:
        unet: an LDM-layout UNet.
        lasting: addresses of storages that don't count.
        forward: runs it with gradients.
    """
    counter = _Counter(lasting)
    with ExitStack() as stack:
        for block in unet_blocks(unet):
            stack.callback(block.register_forward_pre_hook(counter.begin_block).remove)
            stack.callback(block.register_forward_hook(counter.end_block).remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(counter.keep, lambda tensor: tensor))
        result = forward()
    found = counter.total()
    del result
    return found


class _Counter:
    """Storages by address; those that are kept stay alive until the count is made, so no address comes twice."""

    def __init__(self, lasting: frozenset[int]) -> None:
        self._lasting = lasting
        self._kept: dict[int, int] = {}
        self._inputs: dict[int, int] = {}
        self._blocks: list[dict[int, int]] = []
        self._outside: dict[int, int] = {}
        self._block = self._outside
        self._alive: list[Tensor] = []

    def begin_block(self, block: nn.Module, args: tuple[Any, ...]) -> None:
        self._block = {}
        self._blocks.append(self._block)
        for value in args:
            if isinstance(value, Tensor):
                self._alive.append(value)
                self._note(value, self._inputs)
                self._note(value, self._block)

    def end_block(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._block = self._outside

    def keep(self, tensor: Tensor) -> Tensor:
        self._note(tensor, self._block)
        self._note(tensor, self._kept)
        return tensor

    def total(self) -> ActivationBytes:
        inside = (num_bytes for address, num_bytes in self._kept.items() if address not in self._inputs)
        return ActivationBytes(
            kept=sum(self._kept.values()),
            inputs=sum({**self._outside, **self._inputs}.values()),
            largest_block=max(sum(block.values()) for block in self._blocks),
            largest_tensor=max(inside, default=0),
        )

    def _note(self, tensor: Tensor, where: dict[int, int]) -> None:
        address = _address(tensor)
        if address not in self._lasting:
            where[address] = tensor.untyped_storage().nbytes()


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
