"""Networks that take turns on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

_Network = TypeVar("_Network", bound=nn.Module)


@contextmanager
def resident(network: _Network, device: torch.device) -> Iterator[_Network]:
    """A network on `device` for the `with` block, and back where it was afterwards, also when the block raises."""
    home = next(network.parameters()).device
    if home == device:
        yield network
        return
    try:
        yield network.to(device)
    finally:
        network.to(home)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the next network's turn
