"""Layers whose weight may be stored in another type than the one in which they compute.

Weights of 8 bits take the type of the layer's input each time the layer runs. Norms, biases and position tables stay in
the type in which the network computes; they are small, and 8 bits would cost them most.

Inputs and weights of 16 bits run in float32 where the processor has no products of 16 bits (torch's loops for those
took 8 times as long in a linear layer and 100 times in a convolution on an AVX2 machine), and so take half of float32's
memory at nearly its speed. All else runs as in `torch.nn`, at no cost: mixing types is an error as ever, or what
`torch.autocast` is for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOW_CAPABILITIES = frozenset({"DEFAULT", "NO AVX", "AVX2"})
"""Names that torch gives to processors for which it has no fast products of 16 bits."""


def is_narrow(tensor: Tensor) -> bool:
    """True for floating-point numbers of 8 bits, which are for storage: almost nothing computes in them."""
    return tensor.is_floating_point() and tensor.element_size() == 1


def has_narrow_weights(module: nn.Module) -> bool:
    """True where some of a network is stored in 8 bits."""
    return any(map(is_narrow, module.parameters()))


@cache
def processor_widens() -> bool:
    """Whether layers on this machine's processor run in float32 where their input has 16 bits."""
    return torch.backends.cpu.get_cpu_capability() in SLOW_CAPABILITIES


def runs_in_float32(input: Tensor, weight: Tensor) -> bool:
    """Whether a layer's product of 16 bits runs in float32 and is rounded then."""
    if input.device.type != "cpu" or not processor_widens():
        return False
    autocast_dtype = _autocast_dtype()
    agree = autocast_dtype is not None or weight.dtype == input.dtype or is_narrow(weight)
    return agree and (autocast_dtype or input.dtype).itemsize == 2


class CastLinear(nn.Linear):
    """`torch.nn.Linear` whose weight may be stored in 8 bits, and which runs in float32 where 16 bits are slow."""

    def forward(self, input: Tensor) -> Tensor:
        """`… in_features` to `… out_features`."""
        return _product(F.linear, input, self.weight, self.bias)


class CastConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` whose weight may be stored in 8 bits, and which runs in float32 where 16 bits are slow."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(super()._conv_forward, input, weight, bias)


class CastConv3d(nn.Conv3d):
    """`torch.nn.Conv3d` whose weight may be stored in 8 bits, and which runs in float32 where 16 bits are slow."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(super()._conv_forward, input, weight, bias)


def _product(
    function: Callable[[Tensor, Tensor, Tensor | None], Tensor], input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    if runs_in_float32(input, weight):
        with torch.autocast("cpu", enabled=False):
            product = function(input.float(), weight.float(), None if bias is None else bias.float())
        return product.to(_autocast_dtype() or input.dtype)
    if is_narrow(weight):
        weight, bias = weight.to(input.dtype), None if bias is None else bias.to(input.dtype)
    return function(input, weight, bias)


def _autocast_dtype() -> torch.dtype | None:
    """Type of `torch.autocast` on the processor; None where it is off. Before 2.4 torch had other names for this."""
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None


CAST_LAYERS = (CastLinear, CastConv2d, CastConv3d)
