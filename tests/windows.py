"""Windows for tests, and a slow and plain way to run a temporal transformer in them."""

import torch
from einops import rearrange

from motion.context.fusion import fuse_weights
from motion.context.schedules import Context, windows_of_step
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
