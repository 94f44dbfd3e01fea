"""Frames to write, and an exact reading of what was written."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

BARS = [
    (255, 255, 255),
    (255, 255, 0),
    (0, 255, 255),
    (0, 255, 0),
    (255, 0, 255),
    (255, 0, 0),
    (0, 0, 255),
    (0, 0, 0),
]


def smooth_frames(num_frames: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    y, x = np.mgrid[:height, :width] / max(width, height)
    return [
        np.stack([200 * x + 3 * i, 220 * y + 2 * i, 128 + 60 * np.sin(2 * x + i / 8)], -1).clip(0, 255).astype(np.uint8)
        for i in range(num_frames)
    ]


def noise_frames(num_frames: int, size: int = 64) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(num_frames)]


def bar_frame(bar_width: int = 16, height: int = 64) -> np.ndarray:
    row = np.repeat(np.array(BARS, dtype=np.uint8), bar_width, axis=0)
    return np.tile(row, (height, 1, 1))


def decoded_mp4(path: Path) -> list[np.ndarray]:
    """Frames by the definition of BT.709 in limited range, in floating point: swscale's own way back truncates."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            height, width = frame.height, frame.width
            planes = frame.to_ndarray(format="yuv420p").reshape(-1).astype(np.float64)
            luma, blue, red = np.split(planes, [height * width, height * width * 5 // 4])
            y = (luma.reshape(height, width) - 16) / 219
            u, v = (
                ((plane.reshape(height // 2, width // 2) - 128) / 224).repeat(2, 0).repeat(2, 1)
                for plane in (blue, red)
            )
            r, b = y + 1.5748 * v, y + 1.8556 * u
            frames.append(255 * np.stack([r, (y - 0.2126 * r - 0.0722 * b) / 0.7152, b], -1))
    return frames


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second.astype(float)) ** 2)))
