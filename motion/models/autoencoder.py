"""The autoencoder of Stable Diffusion in LDM layout: keys of `first_stage_model.*` load as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motion.models.autoencoder_blocks import AttnBlock, Downsample, ResnetBlock, normalisation
from motion.models.cast_layers import CastConv2d
from motion.models.unet_blocks import Upsample


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of an autoencoder; the defaults are Stable Diffusion's.

    Attributes:
        ch: channels of the first level.
        ch_mult: width of each level in units of `ch`; each level but the last halves the picture's sides.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more.
        z_channels: channels between encoder or decoder and the 1x1 convolutions beside the latents.
        in_channels: channels of a picture.
        out_ch: channels of a decoded picture.
        embed_dim: channels of the latents.
    """

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    in_channels: int = 3
    out_ch: int = 3
    embed_dim: int = 4

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(factor * self.ch for factor in self.ch_mult)


@dataclass(frozen=True)
class DiagonalGaussian:
    """The encoder's answer: a normal distribution of latents, not yet scaled.

    Attributes:
        mean: `b embed_dim h w`.
        logvar: logarithm of the variance, of the same shape.
    """

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of_moments(cls, moments: Tensor) -> DiagonalGaussian:
        """The distribution that an encoder's `b (2 embed_dim) h w` means."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def std(self) -> Tensor:
        """Standard deviation, `b embed_dim h w`."""
        return torch.exp(0.5 * self.logvar)

    def mode(self) -> Tensor:
        """The most likely latents."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
        """Latents drawn from the distribution.

        Args:
            generator: source of the noise, drawn on the generator's own device in float32 so that a seed means the
                same latents on every machine; None is torch's global CPU generator.
            noise: standard normal noise to use instead.
        """
        if noise is None:
            device = torch.device("cpu") if generator is None else generator.device
            noise = torch.randn(self.mean.shape, generator=generator, device=device, dtype=torch.float32)
        return self.mean + self.std * noise.to(self.mean)


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, res_block: type[ResnetBlock] = ResnetBlock) -> None:
        super().__init__()
        self.block_1 = res_block(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = res_block(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b c h w`."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class EncoderLevel(nn.Module):
    """Residual blocks, then half the resolution where another level follows."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, halve: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResnetBlock(in_channels if index == 0 else out_channels, out_channels) for index in range(num_blocks)
        )
        self.downsample = Downsample(out_channels) if halve else None

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b k h w` or `b k h/2 w/2`."""
        for block in self.block:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class DecoderLevel(nn.Module):
    """Residual blocks, then twice the resolution where another level follows."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, double: bool, res_block: type[ResnetBlock]
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            res_block(in_channels if index == 0 else out_channels, out_channels) for index in range(num_blocks)
        )
        self.upsample = Upsample(out_channels) if double else None

    def forward(self, x: Tensor) -> Tensor:
        """`b c h w` to `b k h w` or `b k 2h 2w`."""
        for block in self.block:
            x = block(x)
        return x if self.upsample is None else self.upsample(x)


class Encoder(nn.Module):
    """Pictures to moments."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = CastConv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            EncoderLevel(before, width, config.num_res_blocks, halve=level < len(widths) - 1)
            for level, (before, width) in enumerate(zip((config.ch, *widths), widths, strict=False))
        )
        self.mid = MiddleBlock(widths[-1])
        self.norm_out = normalisation(widths[-1])
        self.conv_out = CastConv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures `b in_channels H W` to `b (2 z_channels) h w`."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return out


class Decoder(nn.Module):
    """Latents to pictures.

    Args:
        config: shape of the autoencoder.
        res_block: the residual blocks of a decoder of the same family.
    """

    def __init__(self, config: AutoencoderConfig, res_block: type[ResnetBlock] = ResnetBlock) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = CastConv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = MiddleBlock(widths[-1], res_block)
        # Level 0 is the full resolution, as in the files, and runs last.
        self.up = nn.ModuleList(
            DecoderLevel(before, width, config.num_res_blocks + 1, double=level > 0, res_block=res_block)
            for level, (before, width) in enumerate(zip((*widths[1:], widths[-1]), widths, strict=True))
        )
        self.norm_out = normalisation(widths[0])
        self.conv_out = CastConv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """`b z_channels h w` to pictures `b out_ch H W`."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class AutoencoderKL(nn.Module):
    """Between pictures in [-1, 1] and latents. Scaling latents (0.18215 for SD1 and SD2) is the caller's."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = CastConv2d(2 * config.z_channels, 2 * config.embed_dim, 1)
        self.post_quant_conv = CastConv2d(config.embed_dim, config.z_channels, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which pictures and latents must come."""
        return self.quant_conv.weight.dtype

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Distribution of the latents of pictures `b in_channels H W` in [-1, 1]."""
        return DiagonalGaussian.of_moments(self.quant_conv(self.encoder(x)))

    def decode(self, z: Tensor) -> Tensor:
        """Pictures `b out_ch H W`, about [-1, 1], of unscaled latents `b embed_dim h w`."""
        pictures: Tensor = self.decoder(self.post_quant_conv(z))
        return pictures
