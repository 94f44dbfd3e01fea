"""A whole motion module file: one temporal transformer per site of the UNet, under the files' own keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from motion.models.site_module import SiteModule
from motion.models.temporal_transformer import TemporalTransformer


@dataclass(frozen=True)
class MotionModuleConfig:
    """Shape of a motion module file.

    Attributes:
        down_channels: channels per down level, such as (320, 640, 1280, 1280).
        up_channels: channels per up level, deepest first, such as (1280, 1280, 640, 320).
        mid_channels: channels of the middle block's module; None where the file has none.
        max_length: rows of the position table.
        num_attention_blocks: attentions before each feed-forward.
        num_heads: attention heads.
        down_modules: modules per down level, as many as the UNet has ResBlocks there.
        up_modules: modules per up level.
        motion_norm_over_frames: the modules' own GroupNorm takes its statistics over all frames (SDXL beta only).
        unet_norm_over_frames: the UNet's ResBlocks and its final norm do so too (v1, HotShot-XL).

    Raises:
        ValueError: channels that 32 groups or the heads don't divide.
    """

    down_channels: tuple[int, ...]
    up_channels: tuple[int, ...]
    mid_channels: int | None
    max_length: int
    num_attention_blocks: int = 2
    num_heads: int = 8
    down_modules: int = 2
    up_modules: int = 3
    motion_norm_over_frames: bool = False
    unet_norm_over_frames: bool = False

    def __post_init__(self) -> None:
        middle = () if self.mid_channels is None else (self.mid_channels,)
        for channels in (*self.down_channels, *middle, *self.up_channels):
            if channels <= 0 or channels % 32 or channels % self.num_heads:
                raise ValueError(
                    f"Channels of a motion module must be multiples of 32 and of its {self.num_heads} heads, "
                    f"got {channels}. Check the file's shapes."
                )


class MotionModule(nn.Module):
    """One site's module; a level of names that the files have above each temporal transformer."""

    def __init__(self, channels: int, config: MotionModuleConfig) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(
            channels,
            config.num_heads,
            config.max_length,
            config.num_attention_blocks,
            norm_over_frames=config.motion_norm_over_frames,
        )


class MotionLevel(nn.Module):
    """The modules of one level of the UNet."""

    def __init__(self, channels: int, num_modules: int, config: MotionModuleConfig) -> None:
        super().__init__()
        self.motion_modules = nn.ModuleList(MotionModule(channels, config) for _ in range(num_modules))


class MotionModel(nn.Module):
    """Every module of a motion module file. State-dict keys are AnimateDiff's.

    It has no `forward`: its parts run inside a UNet, where `motion.injection` puts them.

    Attributes:
        fills_every_site: a site of the UNet that stays empty, other than the middle one, means the wrong UNet.
    """

    fills_every_site: ClassVar[bool] = True

    def __init__(self, config: MotionModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.down_blocks = nn.ModuleList(
            MotionLevel(channels, config.down_modules, config) for channels in config.down_channels
        )
        self.mid_block = None if config.mid_channels is None else MotionLevel(config.mid_channels, 1, config)
        self.up_blocks = nn.ModuleList(
            MotionLevel(channels, config.up_modules, config) for channels in config.up_channels
        )

    def site_modules(self) -> Mapping[str, SiteModule]:
        """Site name, such as "down_blocks.0.motion_modules.1", to its temporal transformer."""
        return {
            name.removesuffix(".temporal_transformer"): module
            for name, module in self.named_modules()
            if isinstance(module, TemporalTransformer)
        }
