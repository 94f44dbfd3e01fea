"""Less memory for a backward pass: a UNet's blocks are run a second time instead of keeping what they computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def unet_blocks(unet: nn.Module) -> list[nn.Module]:
    """The blocks of an LDM-layout UNet in the order in which they run."""
    before, after = unet.get_submodule("input_blocks"), unet.get_submodule("output_blocks")
    return [*before.children(), unet.get_submodule("middle_block"), *after.children()]


@contextmanager
def blocks_checkpointed(unet: nn.Module) -> Iterator[None]:
    """Run each block of an LDM-layout UNet under activation checkpointing (Chen et al. 2016, arXiv:1604.06174).

    The second pass is part of the backward pass, which must lie inside the `with` block, and hooks inside a block,
    motion modules among them, must be there still. Results and gradients are the same.
    """
    with ExitStack() as stack:
        for block in unet_blocks(unet):
            stack.enter_context(_forward_replaced(block, _checkpointed(block.forward)))
        yield


@contextmanager
def _forward_replaced(block: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """On this instance only; one that somebody else has put there comes back."""
    attributes = vars(block)
    before = {name: attributes[name] for name in ("forward",) if name in attributes}
    attributes["forward"] = forward
    try:
        yield
    finally:
        del attributes["forward"]
        attributes.update(before)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args)
        # The networks draw no random numbers, so no state of generators has to be kept.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False)

    return run
