"""The temporal decoder of Stable Video Diffusion, and the two halves of an autoencoder as it needs them.

Layout and formulas are those of Stability-AI/generative-models, sgm/modules/autoencoding/temporal_ae.py: keys of
`first_stage_model.decoder.*` and `conditioner.embedders.3.encoder.*` load as they are.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from motion.models.autoencoder import AutoencoderConfig, Decoder, DiagonalGaussian, Encoder
from motion.models.autoencoder_blocks import ResnetBlock
from motion.models.cast_layers import CastConv2d, CastConv3d
from motion.models.video_blocks import TemporalResBlock


class TemporalResnetBlock(ResnetBlock):
    """Residual block of a picture, then one over the frames of a clip.

    The mix is the other way round than in the UNet: α·temporal + (1-α)·spatial.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.time_stack = TemporalResBlock(out_channels, out_channels, None)
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Frames of one clip, `f c h w` to `f k h w`."""
        spatial = super().forward(x)
        temporal = self.time_stack(rearrange(spatial, "f c h w -> 1 c f h w"), None)
        return torch.lerp(spatial, rearrange(temporal, "1 c f h w -> f c h w"), torch.sigmoid(self.mix_factor))


class TemporalConv2d(CastConv2d):
    """Convolution of each frame, then one over frames."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.time_mix_conv = CastConv3d(out_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, input: Tensor) -> Tensor:
        """Frames of one clip, `f c h w` to `f k h w`."""
        clip = rearrange(super().forward(input), "f c h w -> 1 c f h w")
        frames: Tensor = rearrange(self.time_mix_conv(clip), "1 c f h w -> f c h w")
        return frames


class TemporalDecoder(Decoder):
    """Latents of one clip to its frames: all rows of a call are frames of the same clip, in order."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config, TemporalResnetBlock)
        self.conv_out = TemporalConv2d(config.widths[0], config.out_ch)


class LatentEncoder(nn.Module):
    """The half of an autoencoder that encodes."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = CastConv2d(2 * config.z_channels, 2 * config.embed_dim, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which pictures must come."""
        return self.quant_conv.weight.dtype

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Distribution of the latents of pictures `b in_channels H W` in [-1, 1], not scaled."""
        return DiagonalGaussian.of_moments(self.quant_conv(self.encoder(x)))


class ClipDecoder(nn.Module):
    """The half of SVD's autoencoder that decodes, with layers over frames."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = TemporalDecoder(config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which latents must come."""
        return self.decoder.conv_in.weight.dtype

    def decode(self, z: Tensor) -> Tensor:
        """Frames `f out_ch H W`, about [-1, 1], of the unscaled latents `f z_channels h w` of one clip."""
        frames: Tensor = self.decoder(z)
        return frames


class FrameDecoder(nn.Module):
    """The half of an ordinary autoencoder that decodes, each frame by itself: SVD's `image_decoder` variants."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config)
        self.post_quant_conv = CastConv2d(config.embed_dim, config.z_channels, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which latents must come."""
        return self.post_quant_conv.weight.dtype

    def decode(self, z: Tensor) -> Tensor:
        """Frames `f out_ch H W`, about [-1, 1], of unscaled latents `f embed_dim h w`."""
        frames: Tensor = self.decoder(self.post_quant_conv(z))
        return frames
