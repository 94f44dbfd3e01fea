"""Memory and time of decoding, by frames at once: `python -m benchmarks.decode_memory [--size 16] [--frames 4]`.

The decoder has Stable Diffusion's width and random weights, in fp32. Memory is that of all tensors at the peak, which
is what a frame's latent pixel takes in `motion.video.decoding`. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from benchmarks.tensor_memory import PeakTensors
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.video.decoding import DecodePlan, decoded_in_chunks

MIB = 2**20


@torch.inference_mode()
def measure(size: int, num_frames: int) -> dict[str, dict[str, float]]:
    """Plan -> seconds and values for each latent pixel, MiB at the peak, and largest difference to one at a time."""
    torch.manual_seed(0)
    model = AutoencoderKL(AutoencoderConfig()).eval()
    latents = torch.randn(num_frames, 4, size, size)
    plans = [DecodePlan(count) for count in (1, 2, 4, 8, 16) if count <= num_frames]
    plans += [DecodePlan(1, size // 2)] if size >= 32 else []
    model.decode(latents[:1])  # what the libraries set up once
    found, alone = {}, None
    for plan in plans:
        began = time.perf_counter()
        frames = torch.stack([p for chunk in decoded_in_chunks(latents, model.decode, plan) for p in chunk])
        seconds = (time.perf_counter() - began) / num_frames
        with PeakTensors() as counted:
            next(decoded_in_chunks(latents, model.decode, plan))
        alone = frames if alone is None else alone
        name = f"{plan.chunk_size} at once" if plan.tile_size is None else f"1 in tiles of {plan.tile_size}"
        found[name] = {
            "seconds_per_frame": round(seconds, 3),
            "peak_mib": round(counted.peak_bytes / MIB, 1),
            "values_per_latent_pixel": round(counted.peak_bytes / 4 / size**2 / plan.chunk_size),
            "difference": float((frames - alone).abs().max()),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16, help="height and width of the latents")
    parser.add_argument("--frames", type=int, default=4)
    arguments = parser.parse_args()
    found = measure(arguments.size, arguments.frames)
    for name, row in found.items():
        print(f"{name:20}", *(f"{key} {value:<12.5g}" for key, value in row.items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
