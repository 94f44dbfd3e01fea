"""A motion model whose modules somebody else wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.site_module import SiteModule


class CustomMotionModel(MotionModel):
    """Modules of any class at any of the UNet's sites; places without one stay as they are.

    State-dict keys are "<site>.<key of the module>", such as "down_blocks.0.motion_modules.1.proj.weight".

    Args:
        modules: site, such as "mid_block.motion_modules.0", to its module, which is a `torch.nn.Module`.
        unet_norm_over_frames: the UNet's ResBlocks and its final norm take their statistics over all frames.

    Raises:
        TypeError: a module is no `torch.nn.Module`.
        ValueError: there is no module.
    """

    fills_every_site: ClassVar[bool] = False

    def __init__(self, modules: Mapping[str, SiteModule], *, unet_norm_over_frames: bool = False) -> None:
        if not modules:
            raise ValueError("A motion model needs a module at one site of the UNet at least, got none.")
        max_length = min(module.max_length for module in modules.values())
        no_transformers = MotionModuleConfig((), (), None, max_length, unet_norm_over_frames=unet_norm_over_frames)
        super().__init__(no_transformers)
        self._sites = dict(modules)
        for site, module in modules.items():
            if not isinstance(module, nn.Module):
                raise TypeError(f"The module at {site} must be a torch.nn.Module, got {type(module).__name__}.")
            *parents, last = site.split(".")
            node: nn.Module = self
            for name in parents:
                if getattr(node, name, None) is None:
                    setattr(node, name, nn.Module())
                node = node.get_submodule(name)
            setattr(node, last, module)

    def site_modules(self) -> dict[str, SiteModule]:
        """Site name to its module."""
        return dict(self._sites)
