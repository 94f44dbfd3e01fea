"""Windows for tests, and a slow and plain way to run a temporal transformer in them."""

import math

import torch
from einops import rearrange
from torch import nn

from motion.context.fusion import fuse_weights
from motion.context.schedules import Context, windows_of_step
from motion.models.temporal_transformer import TemporalTransformer
from motion.protocols import FrameWindows


def make_windows(num_frames, length, overlap, schedule="static", step=0, *, stride=1, closed=False, method="pyramid"):
    windows = windows_of_step(schedule, num_frames, Context(length, overlap, stride, closed), step)
    return FrameWindows(windows, fuse_weights(method, windows, num_frames, overlap, closed_loop=closed))


def overwriting(windows):
    """The same windows without a blend: the last one of a frame wins."""
    winners = {frame: index for index, window in enumerate(windows.windows) for frame in window}
    return FrameWindows(
        windows.windows,
        tuple(
            tuple(float(winners[frame] == index) for frame in window) for index, window in enumerate(windows.windows)
        ),
    )


def run_in_windows(transformer, x, num_frames, windows, scale=1.0, on_window=None):
    """What `TemporalTransformer` is to give: each attention as a whole once per window, then the blend."""
    height, width = x.shape[-2:]
    tokens = rearrange(transformer._normalised(x, num_frames), "(b f) c h w -> (b h w) f c", f=num_frames)
    tokens = transformer.proj_in(tokens)
    (block,) = transformer.transformer_blocks
    for norm, attention in zip(block.norms, block.attention_blocks, strict=True):
        blended = torch.zeros_like(tokens)
        for window, weights in zip(windows.windows, windows.weights, strict=True):
            if on_window is not None:
                on_window(window)
            result = attention(norm(tokens[:, list(window)]))
            for place, (frame, weight) in enumerate(zip(window, weights, strict=True)):
                blended[:, frame] += weight * result[:, place]
        tokens = blended + tokens
    tokens = block.ff(block.ff_norm(tokens)) + tokens
    branch = rearrange(transformer.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=height, w=width)
    return x + scale * branch


SHARE = 0.025
DRIFT_CHANNELS = 128


def averaging_transformer(share=SHARE):
    """A temporal transformer whose branch is its input and `share` of its window's mean: its output is known.

    Of frames that turn by a constant angle (`turning`), each window's output turns by the same constant angle, a
    constant drift; windows agree on it and differ by a constant, as windows of real modules do.
    """
    module = TemporalTransformer(DRIFT_CHANNELS, num_heads=4, max_length=16, num_attention_blocks=1)
    module.requires_grad_(False)
    (block,) = module.transformer_blocks
    attention = block.attention_blocks[0]
    attention.pos_encoder.pe.zero_()
    for layer in (attention.to_q, attention.to_k, block.ff.net[2], attention.to_out[0], module.proj_in):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    for layer, factor in ((attention.to_v, 1), (attention.to_out[0], share), (module.proj_in, 1), (module.proj_out, 1)):
        layer.weight.copy_(factor * torch.eye(DRIFT_CHANNELS))
    return module


def turning(num_frames, angle, channels=DRIFT_CHANNELS):
    """`f c 1 1`: (cos, -cos, sin, -sin) of each frame's angle, mean 0 and variance 1 in each group of 4 channels."""
    theta = angle * torch.arange(num_frames, dtype=torch.float64)
    quarter = torch.stack([theta.cos(), -theta.cos(), theta.sin(), -theta.sin()], dim=1) * math.sqrt(2)
    return quarter.repeat(1, channels // 4)[:, :, None, None].float()
