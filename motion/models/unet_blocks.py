"""Parts of the LDM-layout UNet: residual block, spatial transformer, resampling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from motion.models.attention import CrossAttention, FeedForward
from motion.models.cast_layers import CastConv2d, CastLinear
from motion.models.video_rows import VideoRows

NUM_GROUPS = 32


def timestep_embedding(timesteps: Tensor, channels: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of diffusion timesteps, cosines before sines.

    Args:
        timesteps: `b`, any dtype, fractions allowed.
        channels: channels of the embedding, even.
        max_period: longest period over 2π.

    Returns:
        `b channels`, float32.
    """
    half = channels // 2
    rate = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angle = timesteps.float().unsqueeze(-1) * rate
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


class ResBlock(nn.Module):
    """Residual block of two convolutions, the time embedding added between them.

    A block over other axes overrides `convolution` and `spread`.

    Args:
        in_channels: channels of the feature map.
        out_channels: channels of the result.
        embedding_channels: channels of the time embedding; None for a block without one.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int | None) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(NUM_GROUPS, in_channels, eps=1e-5),
            nn.SiLU(),
            self.convolution(in_channels, out_channels),
        )
        if embedding_channels is not None:
            self.emb_layers = nn.Sequential(nn.SiLU(), CastLinear(embedding_channels, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(NUM_GROUPS, out_channels, eps=1e-5),
            nn.SiLU(),
            nn.Identity(),  # a dropout in the networks that wrote the public files, where the convolution is `.3`
            self.convolution(out_channels, out_channels),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else CastConv2d(in_channels, out_channels, 1)

    def convolution(self, in_channels: int, out_channels: int) -> nn.Module:
        """A convolution of this block, which keeps the feature map's size."""
        return CastConv2d(in_channels, out_channels, 3, padding=1)

    def spread(self, embedding: Tensor) -> Tensor:
        """Projected time embedding `b k` to what is added to a feature map, `b k 1 1`."""
        return embedding[:, :, None, None]

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Feature map `b c h w` and time embedding `b e`, None for a block without one, to `b k h w`."""
        features = self.in_layers(x)
        if embedding is not None:
            features = features + self.spread(self.emb_layers(embedding))
        out: Tensor = self.skip_connection(x) + self.out_layers(features)
        return out


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each after its LayerNorm and around a residual."""

    def __init__(self, channels: int, num_heads: int, head_dim: int, context_dim: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(channels, num_heads, head_dim)
        self.attn2 = CrossAttention(channels, num_heads, head_dim, context_dim)
        self.ff = FeedForward(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens `b n c` and context `b m k` to `b n c`."""
        x = self.attn1(self.norm1(x)) + x
        x = self.see(x, context) + x
        out: Tensor = self.ff(self.norm3(x)) + x
        return out

    def see(self, x: Tensor, context: Tensor) -> Tensor:
        """What a context `b m k` adds to tokens `b n c`; of a context of one token, the same for all: `b 1 c`."""
        if context.shape[1] == 1:
            return self.attn2.from_one_token(context)
        seen: Tensor = self.attn2(self.norm2(x), context)
        return seen


class SpatialTransformer(nn.Module):
    """Transformer over the pixels of a feature map, conditioned on a context.

    Args:
        channels: channels of the feature map.
        num_heads: attention heads.
        head_dim: channels of one head.
        depth: transformer blocks.
        context_dim: channels of the context.
        use_linear: linear projections in and out (SD2, SDXL) where SD1 has 1x1 convolutions.
    """

    def __init__(
        self, channels: int, num_heads: int, head_dim: int, depth: int, context_dim: int, use_linear: bool
    ) -> None:
        super().__init__()
        inner_dim = num_heads * head_dim
        self.use_linear = use_linear
        self.norm = nn.GroupNorm(NUM_GROUPS, channels, eps=1e-6)
        self.proj_in = CastLinear(channels, inner_dim) if use_linear else CastConv2d(channels, inner_dim, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(inner_dim, num_heads, head_dim, context_dim) for _ in range(depth)
        )
        self.proj_out = CastLinear(inner_dim, channels) if use_linear else CastConv2d(inner_dim, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Feature map `b c h w` and context `b m k` to `b c h w`."""
        tokens = self.tokens(x)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.feature_map(tokens, x.shape[-2], x.shape[-1])

    def tokens(self, x: Tensor) -> Tensor:
        """Normalised and projected feature map, `b c h w` to `b (h w) d`."""
        x = self.norm(x)
        if not self.use_linear:
            x = self.proj_in(x)
        tokens: Tensor = rearrange(x, "b c h w -> b (h w) c")
        return self.proj_in(tokens) if self.use_linear else tokens

    def feature_map(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Tokens back to a feature map, `b (h w) d` to `b c h w`."""
        if self.use_linear:
            tokens = self.proj_out(tokens)
        x: Tensor = rearrange(tokens, "b (h w) c -> b c h w", h=height, w=width)
        return x if self.use_linear else self.proj_out(x)


class Downsample(nn.Module):
    """Halves height and width with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = CastConv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b c ⌈h/2⌉ ⌈w/2⌉`."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Doubles height and width, then convolves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CastConv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b c 2h 2w`."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class TimestepEmbedSequential(nn.Sequential):
    """Runs its children in turn and gives each the inputs that its type takes."""

    # Wider than Sequential's on purpose: its only callers are UNets.
    def forward(  # type: ignore[override]
        self, x: Tensor, embedding: Tensor, context: Tensor, frames: VideoRows | None = None
    ) -> Tensor:
        """Feature map `b c h w`, time embedding `b e` and context `b m k` to a feature map.

        `frames` is for the blocks of a video UNet, which take it beside their other inputs.
        """
        rows = () if frames is None else (frames,)
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, embedding, *rows)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context, *rows)
            else:
                x = layer(x)
        return x


def join_skip(x: Tensor, skip: Tensor) -> Tensor:
    """A feature map and the skip connection that it meets, `b c h w` and `b k h w` to `b (c+k) h w`.

    Latent sides that are no multiple of 8 come back from down- and upsampling a row or column too large; as in the
    host, the skip's size decides and the nearest pixels are taken.
    """
    if x.shape[-2:] != skip.shape[-2:]:
        x = F.interpolate(x, skip.shape[-2:], mode="nearest")
    return torch.cat([x, skip], dim=1)
