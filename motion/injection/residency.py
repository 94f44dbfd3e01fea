"""Motion modules on the device on which the UNet computes, for the length of a `with` block.

The tensors on the CPU are the masters: layers get copies in their place, and get the masters back, the same objects.
Nothing is ever copied from the device. Uploads are plain ones out of pageable memory: pinning it would take a second
module's worth of RAM, to save a fraction of a second of a UNet call that takes many.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from motion.models.cast_layers import is_narrow
from motion.models.motion_module import MotionModel
from motion.protocols import Placement


@contextmanager
def resident(module: nn.Module, placement: Placement) -> Iterator[None]:
    """Run `module` with copies of its tensors on the device, in the type in which the host computes.

    Weights stored in 8 bits stay so; their layers cast them. A tensor that is already as wanted is not copied. On
    leaving, by whatever way, parameters and buffers are the old objects; what was written to a copy is lost.

    Args:
        module: any network, on the CPU.
        placement: where to, and in which type.
    """
    with ExitStack() as stack:
        _place(module, placement, stack)
        yield


@contextmanager
def streamed(motion_model: MotionModel, placement: Placement) -> Iterator[None]:
    """Run `motion_model` with the tensors of one site on the device at a time, as `resident` puts them there.

    They come when the site's module is called, and go when it returns, or at the latest when the next one is called or
    the block is left.

    Args:
        motion_model: the modules, on the CPU.
        placement: where to, and in which type.
    """
    with ExitStack() as stack:
        site = _StreamedSite(placement)
        stack.callback(site.leave)
        for module in motion_model.site_modules().values():
            assert isinstance(module, nn.Module)
            stack.callback(module.register_forward_pre_hook(site.enter).remove)
            stack.callback(module.register_forward_hook(site.leave).remove)
        yield


def resident_bytes(motion_model: MotionModel, placement: Placement) -> int:
    """Memory of the device that the copies take: all of them, or those of the largest site where they are streamed."""
    modules = motion_model.site_modules().values() if placement.streamed else (motion_model,)
    return max((_copied_bytes(module, placement) for module in modules), default=0)


class _StreamedSite:
    """The site that is on the device now. Hooks of the sites' modules."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._stack = ExitStack()

    def enter(self, module: nn.Module, args: Any) -> None:
        """Forward pre-hook."""
        self.leave()  # one that failed
        self._stack.enter_context(resident(module, self._placement))

    def leave(self, *_: Any) -> None:
        """Forward hook."""
        self._stack.close()


def _place(module: nn.Module, placement: Placement, stack: ExitStack) -> None:
    copies: dict[int, Tensor] = {}  # tied tensors share one
    try:
        for layer in module.modules():
            for name, master in _own_tensors(layer):
                if _is_placed(master, placement):
                    continue
                if id(master) not in copies:
                    copy = master.detach().to(placement.device, _dtype_there(master, placement))
                    is_parameter = isinstance(master, nn.Parameter)
                    copies[id(master)] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
                stack.callback(setattr, layer, name, master)
                setattr(layer, name, copies[id(master)])
    finally:
        copies.clear()  # a traceback of "out of memory" must not keep what it was about


def _own_tensors(layer: nn.Module) -> list[tuple[str, Tensor]]:
    parameters = layer.named_parameters(recurse=False, remove_duplicate=False)
    return [*parameters, *layer.named_buffers(recurse=False, remove_duplicate=False)]


def _copied_bytes(module: Any, placement: Placement) -> int:
    tensors = {id(tensor): tensor for layer in module.modules() for _, tensor in _own_tensors(layer)}.values()
    copied = (tensor for tensor in tensors if not _is_placed(tensor, placement))
    return sum(tensor.numel() * _dtype_there(tensor, placement).itemsize for tensor in copied)


def _is_placed(tensor: Tensor, placement: Placement) -> bool:
    return tensor.device == placement.device and tensor.dtype == _dtype_there(tensor, placement)


def _dtype_there(tensor: Tensor, placement: Placement) -> torch.dtype:
    return placement.dtype if tensor.is_floating_point() and not is_narrow(tensor) else tensor.dtype
