"""The UNet of Stable Diffusion 1, 2 and XL in LDM layout: keys of `model.diffusion_model.*` load as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motion.models.cast_layers import CastConv2d, CastLinear
from motion.models.unet_blocks import (
    NUM_GROUPS,
    Downsample,
    ResBlock,
    SpatialTransformer,
    TimestepEmbedSequential,
    Upsample,
    join_skip,
    timestep_embedding,
)
from motion.models.video_rows import VideoRows


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a UNet; the defaults are Stable Diffusion 1.5's.

    Attributes:
        in_channels: channels of the noisy latents, with what is concatenated to them.
        out_channels: channels of the prediction.
        model_channels: channels of the first level.
        channel_mult: width of each level in units of `model_channels`.
        num_res_blocks: residual blocks per down level; an up level has one more.
        transformer_depth: transformer blocks per level; 0 means no attention there. SDXL has (0, 2, 10).
        mid_transformer_depth: transformer blocks in the middle. SDXL has 10.
        num_heads: attention heads, where `num_head_channels` is None.
        num_head_channels: channels of a head (SD2 and SDXL: 64).
        context_dim: channels of the context: 768 (SD1), 1024 (SD2), 2048 (SDXL).
        use_linear: linear projections around the transformers (SD2, SDXL).
        adm_in_channels: channels of the vector condition `y` (SDXL: 2816); None where there is none.

    Raises:
        ValueError: `transformer_depth` and `channel_mult` differ in length.
    """

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    transformer_depth: tuple[int, ...] = (1, 1, 1, 0)
    mid_transformer_depth: int = 1
    num_heads: int = 8
    num_head_channels: int | None = None
    context_dim: int = 768
    use_linear: bool = False
    adm_in_channels: int | None = None

    def __post_init__(self) -> None:
        if len(self.transformer_depth) != len(self.channel_mult):
            raise ValueError(
                f"`transformer_depth` must have one number per level ({len(self.channel_mult)}), "
                f"got {self.transformer_depth}. Put 0 for a level without attention."
            )


class UNetModel(nn.Module):
    """Predicts what a sampler needs (noise or v) from noisy latents, a timestep and a context.

    A network of the same family with other blocks overrides `res_block` and `transformer`.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.model_channels
        self.embedding_channels = 4 * width
        self.time_embed = self._embedding_layers(width)
        if config.adm_in_channels is not None:
            self.label_emb = nn.Sequential(self._embedding_layers(config.adm_in_channels))

        self.input_blocks = nn.ModuleList(
            [TimestepEmbedSequential(CastConv2d(config.in_channels, width, 3, padding=1))]
        )
        skips = self._add_down_levels()
        middle = skips[-1]
        self.middle_block = TimestepEmbedSequential(
            self.res_block(middle, middle),
            self.transformer(middle, config.mid_transformer_depth),
            self.res_block(middle, middle),
        )
        self.output_blocks = nn.ModuleList()
        self._add_up_levels(skips)
        self.out = nn.Sequential(
            nn.GroupNorm(NUM_GROUPS, width * config.channel_mult[0], eps=1e-5),
            nn.SiLU(),
            CastConv2d(width * config.channel_mult[0], config.out_channels, 3, padding=1),
        )

    def res_block(self, in_channels: int, out_channels: int) -> ResBlock:
        """A residual block of this network."""
        return ResBlock(in_channels, out_channels, self.embedding_channels)

    def transformer(self, channels: int, depth: int) -> SpatialTransformer:
        """A spatial transformer of this network."""
        return SpatialTransformer(*self.transformer_shape(channels, depth))

    def transformer_shape(self, channels: int, depth: int) -> tuple[int, int, int, int, int, bool]:
        """Arguments of a `SpatialTransformer` of this network."""
        config = self.config
        num_heads = config.num_heads if config.num_head_channels is None else channels // config.num_head_channels
        return channels, num_heads, channels // num_heads, depth, config.context_dim, config.use_linear

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, in which the network computes."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None) -> Tensor:
        """Predict noise or v.

        Args:
            x: noisy latents `b c h w`, any floating dtype.
            timesteps: `b`, 0 to 999, fractions allowed.
            context: text tokens `b n context_dim`.
            y: vector condition `b adm_in_channels`, for networks that have one.

        Returns:
            `b out_channels h w`, in `x`'s dtype; inside, the weights' dtype is used.

        Raises:
            ValueError: `y` is missing or not wanted.
        """
        return self._run_blocks(x, self._embed(timesteps, y), context)

    def _run_blocks(self, x: Tensor, embedding: Tensor, context: Tensor, frames: VideoRows | None = None) -> Tensor:
        """All blocks in turn, in the weights' dtype; `frames` is for those of a video UNet."""
        context = context.to(self.dtype)
        features = x.to(self.dtype)
        skips = []
        for block in self.input_blocks:
            features = block(features, embedding, context, frames)
            skips.append(features)
        features = self.middle_block(features, embedding, context, frames)
        for block in self.output_blocks:
            features = block(join_skip(features, skips.pop()), embedding, context, frames)
        prediction: Tensor = self.out(features)
        return prediction.to(x.dtype)

    def _embed(self, timesteps: Tensor, y: Tensor | None) -> Tensor:
        if (y is None) != (self.config.adm_in_channels is None):
            wanted = "no vector condition `y`" if y is not None else "a vector condition `y`"
            raise ValueError(f"This UNet takes {wanted}. Pass the conditioning of the checkpoint's own family.")
        # Angles up to 999 rad need float32: bfloat16 would keep no digit after the point.
        sines = timestep_embedding(timesteps, self.config.model_channels).to(self.dtype)
        embedding: Tensor = self.time_embed(sines)
        if y is not None:
            embedding = embedding + self.label_emb(y.to(self.dtype))
        return embedding

    def _embedding_layers(self, in_channels: int) -> nn.Sequential:
        width = self.embedding_channels
        return nn.Sequential(CastLinear(in_channels, width), nn.SiLU(), CastLinear(width, width))

    def _level_block(self, in_channels: int, out_channels: int, depth: int) -> TimestepEmbedSequential:
        block = TimestepEmbedSequential(self.res_block(in_channels, out_channels))
        if depth:
            block.append(self.transformer(out_channels, depth))
        return block

    def _add_down_levels(self) -> list[int]:
        """Append the down levels to `input_blocks`; channels of every block's output, in order."""
        config = self.config
        skips = [config.model_channels]
        for level, (factor, depth) in enumerate(zip(config.channel_mult, config.transformer_depth, strict=True)):
            width = factor * config.model_channels
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(self._level_block(skips[-1], width, depth))
                skips.append(width)
            if level < len(config.channel_mult) - 1:
                self.input_blocks.append(TimestepEmbedSequential(Downsample(width)))
                skips.append(width)
        return skips

    def _add_up_levels(self, skips: list[int]) -> None:
        """Append the up levels to `output_blocks`; each block takes one of `skips` from the end."""
        config = self.config
        channels = skips[-1]
        for level in reversed(range(len(config.channel_mult))):
            width = config.channel_mult[level] * config.model_channels
            for index in range(config.num_res_blocks + 1):
                block = self._level_block(channels + skips.pop(), width, config.transformer_depth[level])
                channels = width
                if level > 0 and index == config.num_res_blocks:
                    block.append(Upsample(width))
                self.output_blocks.append(block)
