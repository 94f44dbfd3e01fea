"""What a module at one place of the UNet must offer, whoever wrote it.

There are two tiers. A `FrameModule` sees the feature map alone, as AnimateDiff's temporal transformers do. A
`StepModule` asks for what else the UNet's call knows, by `wants_step = True`; only then is it collected.

A module of either tier that can run a long clip in windows says so by `takes_windows = True`. Its `forward` then gets
the keyword `windows`, an `AttentionWindows`, or None where the clip is one window. A module without it sees the whole
clip at once, and clips longer than its `max_length` are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard

from torch import Tensor, nn


@dataclass(frozen=True)
class UNetStep:
    """The UNet call that is running. Rows are entry after entry, as those of the feature map are: `(b f) …`.

    Attributes:
        timestep: model time of each row, `(b f)`, float32, 0 to 999, fractions allowed; 999 is almost pure noise.
        time_embedding: what the UNet's ResBlocks get of it, `(b f) e`, in the module's dtype; e is 1280 in SD1.5 and
            SDXL. In SDXL the embedding of sizes and pooled text is in it.
        context: text tokens, `(b f) n d`, in the module's dtype; d is 768 in SD1.5, 2048 in SDXL. None where the host
            passes none.
    """

    timestep: Tensor
    time_embedding: Tensor
    context: Tensor | None


class _Sized(Protocol):
    channels: int
    """Channels of the feature map; must be those of the UNet at this place."""
    max_length: int
    """Most frames of a clip, or with `takes_windows` of a window of a longer one."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As `torch.nn.Module` does. Where the host names no type, the module gets its input in the first one's."""
        ...


class FrameModule(_Sized, Protocol):
    """A module that needs the feature map and the number of frames."""

    def forward(self, x: Tensor, num_frames: int, scale: float | Tensor = 1.0) -> Tensor:
        """The feature map `(b f) c h w` with scale · branch added; the frames of each entry are in order.

        Where frames differ in strength, `scale` is float32 `(b f) 1 1 1`; the result may be float32 too then.
        """
        ...

    def __call__(self, x: Tensor, num_frames: int, scale: float | Tensor = 1.0) -> Tensor:
        """`torch.nn.Module`'s way to `forward`."""
        ...


class StepModule(_Sized, Protocol):
    """A module that is told about the UNet's call too."""

    wants_step: Literal[True]

    def forward(self, x: Tensor, num_frames: int, scale: float | Tensor, step: UNetStep) -> Tensor:
        """The feature map `(b f) c h w` with scale · branch added; `scale` is as a `FrameModule`'s."""
        ...

    def __call__(self, x: Tensor, num_frames: int, scale: float | Tensor, step: UNetStep) -> Tensor:
        """`torch.nn.Module`'s way to `forward`."""
        ...


SiteModule = FrameModule | StepModule


def wants_step(module: SiteModule) -> TypeGuard[StepModule]:
    """True for a module of the second tier."""
    return getattr(module, "wants_step", False) is True


def takes_windows(module: SiteModule) -> bool:
    """True for a module whose `forward` has the keyword `windows`."""
    return getattr(module, "takes_windows", False) is True
