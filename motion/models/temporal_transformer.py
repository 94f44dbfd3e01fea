"""The temporal transformer: attention over the frames of a clip, one sequence per pixel."""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from motion.errors import InjectionError
from motion.models.attention import CrossAttention, FeedForward, attend
from motion.models.cast_layers import CastLinear
from motion.models.frame_windows import AttentionWindows


def sinusoidal_table(max_length: int, channels: int) -> Tensor:
    """Position encodings of a motion module, `1 max_length channels`, float32.

    Row p holds sin(p·10000^(-2k/channels)) in channel 2k and the cosine in channel 2k+1 (Vaswani et al. 2017, §3.5).
    Files without a table (AnimateLCM's) were trained with this one. It is made on the CPU whatever the default device:
    on the meta device these functions would first import seconds' worth of torch's reference implementations.
    """
    position = torch.arange(max_length, device="cpu").unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2, device="cpu") * (-math.log(10_000.0) / channels))
    table = torch.zeros(1, max_length, channels, device="cpu")
    table[0, :, 0::2] = torch.sin(position * rate)
    table[0, :, 1::2] = torch.cos(position * rate)
    return table


class PositionEncoder(nn.Module):
    """Table of position encodings, in the files as `pe`."""

    pe: Tensor

    def __init__(self, max_length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoidal_table(max_length, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `b f c` plus the encodings of positions 0 to f-1."""
        # Hosts that move and cast modules layer by layer pass buffers over, so the table follows the tokens.
        return x + self.pe[:, : x.shape[1]].to(x)

    def at(self, positions: Tensor, like: Tensor) -> Tensor:
        """Encodings of int64 positions `m f`, `m f c`, in the dtype and on the device of `like`."""
        return self.pe[0].to(like)[positions]


class TemporalAttention(CrossAttention):
    """Self-attention over frames with position encodings."""

    def __init__(self, channels: int, num_heads: int, max_length: int) -> None:
        super().__init__(channels, num_heads, channels // num_heads)
        self.pos_encoder = PositionEncoder(max_length, channels)

    def forward(self, x: Tensor, context: Tensor | None = None, windows: AttentionWindows | None = None) -> Tensor:
        """Normalised tokens `b f c` to `b f c`; without windows all frames are one."""
        if windows is not None:
            return self._in_windows(x, windows)
        return super().forward(self.pos_encoder(x), context)

    def _in_windows(self, x: Tensor, windows: AttentionWindows) -> Tensor:
        """The attention in windows, positions counted inside each.

        What doesn't depend on the window is computed once per token: W(x + pe) = Wx + W·pe for the three inputs, and
        the output's projection, which is linear, after the blend. Encodings go through the layers as clips of f
        frames, so that a hook on a layer which treats frames differently does so with them too.
        """
        table = self.pos_encoder.at(windows.positions, x)
        inputs = [(layer(x), layer(table)) for layer in (self.to_q, self.to_k, self.to_v)]
        blended = torch.zeros_like(inputs[2][0])
        for index, layer in enumerate(windows.layers):
            query, key, value = (layer.gather(tokens, encodings[index]) for tokens, encodings in inputs)
            layer.add(blended, attend(query, key, value, self.num_heads))
        out: Tensor = self.to_out(blended)
        return out


class TemporalTransformerBlock(nn.Module):
    """Temporal attentions, then a feed-forward, each after its LayerNorm and around a residual."""

    def __init__(self, channels: int, num_heads: int, max_length: int, num_attention_blocks: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(channels, num_heads, max_length) for _ in range(num_attention_blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_attention_blocks))
        self.ff = FeedForward(channels)
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, windows: AttentionWindows | None = None) -> Tensor:
        """Tokens `b f c` to `b f c`; each attention's windows are blended before the next layer runs."""
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = attention(norm(x), windows=windows) + x
        out: Tensor = self.ff(self.ff_norm(x)) + x
        return out


class TemporalTransformer(nn.Module):
    """Lets each pixel of a feature map attend to itself in the other frames.

    A new one is the identity, since its last projection starts at zero. In windows only the attention is windowed: all
    else sees the whole clip, and so do the statistics of a norm over frames. FreeNoise blends windows once per block
    (diffusers' FreeNoiseTransformerBlock), this after each attention, so that the second one sees blended frames.

    Attributes:
        takes_windows: `forward` has `windows`.

    Args:
        channels: channels of the feature map, a multiple of 32 and of `num_heads`.
        num_heads: attention heads.
        max_length: rows of the position table, the longest window.
        num_attention_blocks: attentions before the feed-forward.
        norm_over_frames: take mean and variance of the first norm over all frames of an entry (SDXL beta only).
    """

    takes_windows: Literal[True] = True

    def __init__(
        self,
        channels: int,
        num_heads: int,
        max_length: int,
        num_attention_blocks: int = 2,
        norm_over_frames: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.max_length = max_length
        self.norm_over_frames = norm_over_frames
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = CastLinear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            [TemporalTransformerBlock(channels, num_heads, max_length, num_attention_blocks)]
        )
        self.proj_out = CastLinear(channels, channels)
        for parameter in self.proj_out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, num_frames: int, scale: float | Tensor = 1.0, windows: AttentionWindows | None = None
    ) -> Tensor:
        """Add motion to a feature map.

        Args:
            x: `(b f) c h w`, the frames of each entry in order.
            num_frames: f.
            scale: strength of the temporal branch, one number or float32 `(b f) 1 1 1`; at 0 the result is `x` itself,
                and a row with 0 is that row of `x`.
            windows: windows of the clip; None attends to all frames at once.

        Returns:
            `(b f) c h w`, in `x`'s dtype.

        Raises:
            InjectionError: more frames in a window than positions, windows of another clip, or rows that are no whole
                number of clips.
        """
        if not isinstance(scale, Tensor) and scale == 0:
            return x
        self._check(x, num_frames, windows)
        height, width = x.shape[-2:]
        tokens = rearrange(self._normalised(x, num_frames), "(b f) c h w -> (b h w) f c", f=num_frames)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, windows)
        tokens = self.proj_out(tokens)
        branch = rearrange(tokens, "(b h w) f c -> (b f) c h w", h=height, w=width)
        if isinstance(scale, Tensor):  # multiplied in its float32, as torch multiplies by a number
            branch = (scale * branch).to(branch.dtype)
        elif scale != 1:
            branch = scale * branch
        out: Tensor = x + branch
        return out

    def _normalised(self, x: Tensor, num_frames: int) -> Tensor:
        if not self.norm_over_frames:
            normalised: Tensor = self.norm(x)
            return normalised
        height, width = x.shape[-2:]
        clips = self.norm(rearrange(x, "(b f) c h w -> b c (f h w)", f=num_frames))
        frames: Tensor = rearrange(clips, "b c (f h w) -> (b f) c h w", f=num_frames, h=height, w=width)
        return frames

    def _check(self, x: Tensor, num_frames: int, windows: AttentionWindows | None) -> None:
        length = num_frames if windows is None else windows.max_length
        if not 1 <= length <= self.max_length:
            raise InjectionError(
                f"The motion module knows 1 to {self.max_length} frame positions, got {length} frames. "
                f"Set the number of frames to at most {self.max_length}, run the clip in windows, or take a module "
                "with a longer table."
            )
        if windows is not None and windows.num_frames != num_frames:
            raise InjectionError(
                f"The windows must be those of a clip of {num_frames} frames, got windows of {windows.num_frames} "
                "frames. Please report this."
            )
        if x.shape[0] % num_frames:
            raise InjectionError(
                f"The motion module expected a whole number of clips of {num_frames} frames, got {x.shape[0]} rows. "
                "Another extension or a prompt with AND splits the batch; turn it off for this clip."
            )
