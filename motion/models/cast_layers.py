"""Layers whose weight may be stored in 8 bits: it takes the type of the layer's input each time the layer runs.

Norms, biases and position tables stay in the type in which the network computes; they are small, and 8 bits would cost
them most. Weights that are wider than 8 bits run as in `torch.nn`, at no cost: mixing those types is an error as ever,
or what `torch.autocast` is for.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def is_narrow(tensor: Tensor) -> bool:
    """True for floating-point numbers of 8 bits, which are for storage: almost nothing computes in them."""
    return tensor.is_floating_point() and tensor.element_size() == 1


def has_narrow_weights(module: nn.Module) -> bool:
    """True where some of a network is stored in 8 bits."""
    return any(map(is_narrow, module.parameters()))


class CastLinear(nn.Linear):
    """`torch.nn.Linear` whose weight may be stored in 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        """`… in_features` to `… out_features`."""
        if not is_narrow(self.weight):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class CastConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` whose weight may be stored in 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        """`b in_channels h w` to `b out_channels h' w'`."""
        if not is_narrow(self.weight):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        out: Tensor = self._conv_forward(input, self.weight.to(input.dtype), bias)
        return out


CAST_LAYERS = (CastLinear, CastConv2d)
