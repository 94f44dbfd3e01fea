"""Parts of the autoencoder: residual block, single-head attention, resampling."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from motion.models.attention import attend
from motion.models.cast_layers import CastConv2d


def normalisation(channels: int) -> nn.GroupNorm:
    """The autoencoder's GroupNorm; its eps is not the UNet's."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Residual block of two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = normalisation(in_channels)
        self.conv1 = CastConv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = normalisation(out_channels)
        self.conv2 = CastConv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = None if in_channels == out_channels else CastConv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b k h w`."""
        features = self.conv1(F.silu(self.norm1(x)))
        features = self.conv2(F.silu(self.norm2(features)))
        shortcut = x if self.nin_shortcut is None else self.nin_shortcut(x)
        out: Tensor = shortcut + features
        return out


class AttnBlock(nn.Module):
    """Self-attention of one head over all pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normalisation(channels)
        self.q = CastConv2d(channels, channels, 1)
        self.k = CastConv2d(channels, channels, 1)
        self.v = CastConv2d(channels, channels, 1)
        self.proj_out = CastConv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b c h w`."""
        height, width = x.shape[-2:]
        normalised = self.norm(x)
        query, key, value = (rearrange(layer(normalised), "b c h w -> b (h w) c") for layer in (self.q, self.k, self.v))
        mixed = rearrange(attend(query, key, value, num_heads=1), "b (h w) c -> b c h w", h=height, w=width)
        out: Tensor = x + self.proj_out(mixed)
        return out


class Downsample(nn.Module):
    """Halves height and width; pads right and bottom only, unlike the UNet's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CastConv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b c h/2 w/2`."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out
