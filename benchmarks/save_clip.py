"""Seconds that each format takes for 16 frames of 512×512: `python -m benchmarks.save_clip`."""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from motion.settings import FORMATS
from motion.video import save_clip


def photographic_frames(num_frames: int, size: int) -> list[npt.NDArray[np.uint8]]:
    """Moving gradients with grain, which compress about as photographs do; uint8 h w c each."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    frames = []
    for index in range(num_frames):
        phase = index / num_frames
        waves = [np.sin(6 * (x + phase)) * y, np.cos(5 * (y - phase)) * x, np.sin(9 * x * y + 6 * phase)]
        grain = generator.normal(0, 3, (size, size, 3))
        frames.append((127 + 120 * np.stack(waves, axis=-1) + grain).clip(0, 255).astype(np.uint8))
    return frames


def main() -> None:
    """Time each format alone, then all together, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    frames = photographic_frames(arguments.num_frames, arguments.size)
    for formats in (*((name,) for name in FORMATS), FORMATS):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            clip = save_clip(frames, folder, stem="bench", fps=Fraction(8), formats=formats, infotext="benchmark")
            seconds = time.perf_counter() - start
            num_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        print(f"{'+'.join(clip.files):<12} {seconds:6.2f} s  {num_bytes / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
