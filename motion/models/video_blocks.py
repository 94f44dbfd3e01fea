"""Parts of the video UNet: the image UNet's blocks, each followed by a block over frames that is mixed into it.

The layout and the formulas are those of Stability-AI/generative-models, sgm/modules/video_attention.py and
sgm/modules/diffusionmodules/video_model.py. Rows are `(b f)`, the frames of each of b clips in order.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from motion.models.attention import FeedForward
from motion.models.cast_layers import CastConv3d, CastLinear
from motion.models.unet_blocks import ResBlock, SpatialTransformer, TransformerBlock, timestep_embedding
from motion.models.video_rows import VideoRows


class TemporalResBlock(ResBlock):
    """Residual block over frames: its convolutions see three neighbours in time and one pixel."""

    def convolution(self, in_channels: int, out_channels: int) -> nn.Module:
        """A convolution over frames, `b c f h w` to `b k f h w`."""
        return CastConv3d(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def spread(self, embedding: Tensor) -> Tensor:
        """Projected time embedding `b f k` to `b k f 1 1`."""
        return embedding.transpose(1, 2)[:, :, :, None, None]


class TimeMixer(nn.Module):
    """Learned mix of what a spatial and a temporal block make of the same frames: α·spatial + (1-α)·temporal.

    α is the logistic function of `mix_factor`, and 1 for rows that are pictures of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([0.5]))

    def forward(self, spatial: Tensor, temporal: Tensor, frames: VideoRows) -> Tensor:
        """Two tensors `(b f) …` to one."""
        share = torch.sigmoid(self.mix_factor)
        if frames.stills is not None:
            stills = frames.stills.reshape(-1, *[1] * (spatial.dim() - 1))  # (b f) -> (b f) 1 …
            share = torch.where(stills, torch.ones_like(share), share)
        return torch.lerp(temporal, spatial, share)


class VideoResBlock(ResBlock):
    """Residual block of an image, then one over frames. The latter's norms take their statistics over a whole clip."""

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int) -> None:
        super().__init__(in_channels, out_channels, embedding_channels)
        self.time_stack = TemporalResBlock(out_channels, out_channels, embedding_channels)
        self.time_mixer = TimeMixer()

    # Narrower than an image's block on purpose: a video's can't run without knowing its clips.
    def forward(self, x: Tensor, embedding: Tensor, frames: VideoRows) -> Tensor:  # type: ignore[override]
        """Feature map `(b f) c h w` and time embedding `(b f) e` to `(b f) k h w`."""
        spatial = super().forward(x, embedding)
        clips = rearrange(spatial, "(b f) c h w -> b c f h w", f=frames.num_frames)
        temporal = self.time_stack(clips, rearrange(embedding, "(b f) e -> b f e", f=frames.num_frames))
        mixed: Tensor = self.time_mixer(spatial, rearrange(temporal, "b c f h w -> (b f) c h w"), frames)
        return mixed


class TemporalBlock(TransformerBlock):
    """Transformer block over the frames of each pixel, with a feed-forward before the attentions too."""

    def __init__(self, channels: int, num_heads: int, head_dim: int, context_dim: int) -> None:
        super().__init__(channels, num_heads, head_dim, context_dim)
        self.norm_in = nn.LayerNorm(channels)
        self.ff_in = FeedForward(channels)

    # Not the image's inputs: contexts are per clip, and frames have places.
    def forward(self, x: Tensor, context: Tensor, places: Tensor) -> Tensor:  # type: ignore[override]
        """Run over the frames of each clip.

        Args:
            x: tokens `(b f) s c`.
            context: `b m k`, one for all frames of a clip.
            places: embeddings of the frames' places `f c`, added before all else.

        Returns:
            `(b f) s c`.
        """
        num_tokens = x.shape[1]
        tokens = rearrange(x, "(b f) s c -> (b s) f c", f=len(places)) + places
        tokens = self.ff_in(self.norm_in(tokens)) + tokens
        tokens = self.attn1(self.norm1(tokens)) + tokens
        tokens = self.see(tokens, context) + tokens
        tokens = self.ff(self.norm3(tokens)) + tokens
        frames: Tensor = rearrange(tokens, "(b s) f c -> (b f) s c", s=num_tokens)
        return frames

    def see(self, x: Tensor, context: Tensor) -> Tensor:
        """What a clip's context `b m k` adds to tokens `(b s) f c`, every pixel s of the clip seeing the same."""
        num_tokens = len(x) // len(context)
        if context.shape[1] == 1:
            return super().see(x, context).repeat_interleave(num_tokens, dim=0)  # b 1 c -> (b s) 1 c
        return super().see(x, context.repeat_interleave(num_tokens, dim=0))


class VideoTransformer(SpatialTransformer):
    """Spatial transformer whose every block is followed by one over frames.

    Frames' places are embedded for the temporal blocks only, and these see the context of a clip's first frame.
    """

    def __init__(
        self, channels: int, num_heads: int, head_dim: int, depth: int, context_dim: int, use_linear: bool
    ) -> None:
        super().__init__(channels, num_heads, head_dim, depth, context_dim, use_linear)
        self.channels = channels
        self.time_stack = nn.ModuleList(
            TemporalBlock(num_heads * head_dim, num_heads, head_dim, context_dim) for _ in range(depth)
        )
        self.time_pos_embed = nn.Sequential(
            CastLinear(channels, 4 * channels), nn.SiLU(), CastLinear(4 * channels, channels)
        )
        self.time_mixer = TimeMixer()

    # Narrower than an image's transformer on purpose, as VideoResBlock is.
    def forward(self, x: Tensor, context: Tensor, frames: VideoRows) -> Tensor:  # type: ignore[override]
        """Feature map `(b f) c h w` and context `(b f) m k` to `(b f) c h w`."""
        numbers = torch.arange(frames.num_frames, device=x.device)
        places = self.time_pos_embed(timestep_embedding(numbers, self.channels).to(x.dtype))
        first_context = context[:: frames.num_frames]
        tokens = self.tokens(x)
        for block, temporal_block in zip(self.transformer_blocks, self.time_stack, strict=True):
            tokens = block(tokens, context)
            tokens = self.time_mixer(tokens, temporal_block(tokens, first_context, places), frames)
        return x + self.feature_map(tokens, x.shape[-2], x.shape[-1])
