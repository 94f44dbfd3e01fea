"""Windows of frames as temporal layers run them: gathered on the device, and blended by weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from motion.protocols import FrameWindows


@dataclass(frozen=True)
class WindowLayer:
    """Windows of one length that have no frame in common, so that they run as one batch.

    Attributes:
        length: frames of each window.
        frames: the frames of one window after another, int64 `(w l)`.
        weights: what each counts in the blend, float32 `(w l) 1`.
    """

    length: int
    frames: Tensor
    weights: Tensor

    def gather(self, tokens: Tensor, encodings: Tensor) -> Tensor:
        """The windows of tokens `b f c`, with the encodings `f c` of this layer's positions added: `(b w) l c`."""
        gathered = tokens.index_select(1, self.frames) + encodings.index_select(0, self.frames)
        windows: Tensor = rearrange(gathered, "b (w l) c -> (b w) l c", l=self.length)
        return windows

    def add(self, total: Tensor, windows: Tensor) -> None:
        """Add windows `(b w) l c` by weight to `total`, `b f c`, each frame of the layer once."""
        tokens = rearrange(windows, "(b w) l c -> b (w l) c", b=total.shape[0])
        total.index_add_(1, self.frames, tokens * self.weights.to(tokens))


class AttentionWindows:
    """The windows of a UNet call. Overlapping windows are in different layers, of which one is in memory at a time.

    Sums run layer after layer and no frame is added twice within one, so results repeat to the bit on a GPU too.

    Attributes:
        windows: what they were made from: plain tuples of frames and weights.
        num_frames: frames of the clip.
        max_length: frames of the longest window.
        layers: at least one.
        positions: place of each frame in its window of each layer, int64 `m f`; 0 for frames that a layer doesn't have.
    """

    def __init__(self, windows: FrameWindows, device: torch.device) -> None:
        self.windows = windows
        self.num_frames = windows.num_frames
        self.max_length = max(map(len, windows.windows))
        places = list(_disjoint(windows))
        self.layers = tuple(_layer(windows, layer, device) for layer in places)
        positions = torch.zeros(len(places), self.num_frames, dtype=torch.int64)
        for row, layer in zip(positions, places, strict=True):
            for index in layer:
                row[list(windows.windows[index])] = torch.arange(len(windows.windows[index]))
        self.positions = positions.to(device)


def _disjoint(windows: FrameWindows) -> Iterator[list[int]]:
    """Indices of the windows, in as few layers as taking each window that fits gives."""
    left = list(range(len(windows.windows)))
    while left:
        length, taken, layer = len(windows.windows[left[0]]), set[int](), []
        for index in left:
            window = windows.windows[index]
            if len(window) == length and taken.isdisjoint(window):
                taken.update(window)
                layer.append(index)
        left = [index for index in left if index not in layer]
        yield layer


def _layer(windows: FrameWindows, layer: list[int], device: torch.device) -> WindowLayer:
    frames = [frame for index in layer for frame in windows.windows[index]]
    weights = [weight for index in layer for weight in windows.weights[index]]
    return WindowLayer(
        len(windows.windows[layer[0]]),
        torch.tensor(frames, device=device),
        torch.tensor(weights, device=device, dtype=torch.float32)[:, None],  # (w l) -> (w l) 1
    )
