"""Where motion modules go in an LDM-layout UNet, found from the module tree alone.

A host's classes differ (ldm, sgm, Forge's and reForge's own), their attribute names do not: a ResBlock has `in_layers`
and `out_layers`, a SpatialTransformer has `transformer_blocks`, a Downsample has `op`. The rule is the reference's
(guoyww/AnimateDiff, unet_blocks.py): a module follows the SpatialTransformer, or the ResBlock where a block has none,
and stands before an Upsample; in the middle block it stands before the second ResBlock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from motion.errors import InjectionError


@dataclass(frozen=True)
class InjectionSite:
    """One place for a motion module.

    Attributes:
        key: the module's name in a weight file, such as "down_blocks.0.motion_modules.0".
        path: name of the UNet submodule whose output the motion module takes, such as "input_blocks.1.1".
        channels: channels of that output.
    """

    key: str
    path: str
    channels: int


def is_res_block(module: nn.Module) -> bool:
    """True for a ResBlock of any of the hosts' UNets."""
    return hasattr(module, "in_layers") and hasattr(module, "out_layers")


def find_sites(unet: nn.Module) -> tuple[InjectionSite, ...]:
    """All sites of `unet` in the order in which a forward pass meets them.

    Raises:
        InjectionError: `unet` has no LDM layout.
    """
    if not all(hasattr(unet, name) for name in ("input_blocks", "middle_block", "output_blocks", "out")):
        raise InjectionError(
            f"Motion modules need a Stable Diffusion UNet in LDM layout, got {type(unet).__name__}. "
            "Choose an SD1.5 checkpoint."
        )
    return (*_down_sites(unet), *_middle_site(unet), *_up_sites(unet))


def _down_sites(unet: nn.Module) -> Iterator[InjectionSite]:
    level = position = 0
    for index, block in _blocks(unet, "input_blocks"):
        res_block = _first_res_block(block)
        if res_block is None:
            if any(hasattr(child, "op") for child in block.children()):
                level, position = level + 1, 0
            continue
        path = f"input_blocks.{index}.{_last_processing_child(block)}"
        yield InjectionSite(f"down_blocks.{level}.motion_modules.{position}", path, _channels(res_block))
        position += 1


def _middle_site(unet: nn.Module) -> Iterator[InjectionSite]:
    middle = unet.get_submodule("middle_block")
    res_block = _first_res_block(middle)
    names = [name for name, child in middle.named_children() if not is_res_block(child)]
    if res_block is not None and names:
        yield InjectionSite("mid_block.motion_modules.0", f"middle_block.{names[-1]}", _channels(res_block))


def _up_sites(unet: nn.Module) -> Iterator[InjectionSite]:
    level = position = 0
    for index, block in _blocks(unet, "output_blocks"):
        res_block = _first_res_block(block)
        if res_block is None:
            continue
        last = _last_processing_child(block)
        path = f"output_blocks.{index}.{last}"
        yield InjectionSite(f"up_blocks.{level}.motion_modules.{position}", path, _channels(res_block))
        position += 1
        if last != [name for name, _ in block.named_children()][-1]:  # an Upsample ends the level
            level, position = level + 1, 0


def _blocks(unet: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    yield from unet.get_submodule(name).named_children()


def _first_res_block(block: nn.Module) -> nn.Module | None:
    return next(filter(is_res_block, block.children()), None)


def _last_processing_child(block: nn.Module) -> str:
    """Name of the last ResBlock or SpatialTransformer of `block`."""
    names = [n for n, child in block.named_children() if is_res_block(child) or hasattr(child, "transformer_blocks")]
    return names[-1]


def _channels(res_block: nn.Module) -> int:
    *_, last = res_block.get_submodule("out_layers").children()
    return int(last.out_channels)  # type: ignore[arg-type]
