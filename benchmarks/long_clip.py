"""Long clips beside one of 16 frames, in both window scopes: `python -m benchmarks.long_clip [--width 64] [--size 16]`.

A row is a UNet call with cond and uncond, on random weights in the shapes of SD1.5 and AnimateDiff v3, narrower where
`--width` is below 320. Time is the least of `--repeats`, in which lengths take turns. Memory is that of all tensors at
the peak; weights, the clip's latents and its conds are aside. Prints a table and, as its last line, one JSON object of
ratios to 16 frames: time per frame of the clip, and memory.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.tensor_memory import PeakTensors
from motion.context.plan import WindowPlan
from motion.injection import injected
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from motion.protocols import WindowRun
from motion.settings import MotionSettings

FRAMES = (16, 32, 64, 128)
SCOPES = ("attention", "unet")
MIB = 2**20


@dataclass(frozen=True)
class Figures:
    """One row of the table.

    Attributes:
        seconds_per_frame: time of a UNet call over the frames of the clip.
        peak_bytes: most memory that feature maps took.
    """

    seconds_per_frame: float
    peak_bytes: int


class Networks:
    """A UNet and a motion module with random weights.

    Args:
        width: channels of the UNet's first level.
        size: height and width of the latents.
    """

    def __init__(self, width: int, size: int) -> None:
        torch.manual_seed(0)
        down = (width, 2 * width, 4 * width, 4 * width)
        self.unet = (
            UNetModel(UNetConfig(model_channels=width, context_dim=768 * width // 320)).eval().requires_grad_(False)
        )
        self.motion = MotionModel(MotionModuleConfig(down, down[::-1], None, 32)).eval().requires_grad_(False)
        self._size = size

    def inputs(self, num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, timesteps and conds of cond and uncond."""
        rows = 2 * num_frames
        x = torch.randn(rows, self.unet.config.in_channels, self._size, self._size)
        return x, torch.full((rows,), 500.0), torch.randn(rows, 77, self.unet.config.context_dim)

    def windows(self, num_frames: int, scope: str) -> WindowRun:
        """Windows of 16 frames with an overlap of 4 that lie the same in each call."""
        settings = MotionSettings(enabled=True, num_frames=num_frames, context_overlap=4, context_schedule="static")
        plan = WindowPlan.resolve(settings, 16, 32)
        return WindowRun(lambda: plan.windows(0), scope)

    @torch.inference_mode()
    def seconds(self, num_frames: int, scope: str) -> float:
        """Time of one UNet call."""
        arguments = self.inputs(num_frames)
        with injected(self.unet, self.motion, num_frames, windows=self.windows(num_frames, scope)):
            began = time.perf_counter()
            self.unet(*arguments)
            return time.perf_counter() - began

    @torch.inference_mode()
    def peak_bytes(self, num_frames: int, scope: str) -> int:
        """Memory of one UNet call, without the blend, which is as large as the latents."""
        arguments = self.inputs(num_frames)
        windows = self.windows(num_frames, scope)
        with injected(self.unet, self.motion, num_frames, windows=windows), PeakTensors() as counted:
            self.unet(*arguments)
        return counted.peak_bytes - (arguments[0].nbytes if scope == "unet" and num_frames > 16 else 0)


def measure(networks: Networks, repeats: int) -> dict[tuple[str, int], Figures]:
    """(scope, frames) -> figures."""
    cases = [(scope, frames) for scope in SCOPES for frames in FRAMES]
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    networks.seconds(FRAMES[0], SCOPES[0])  # what the libraries set up once
    for _ in range(repeats):
        for scope, frames in cases:
            times[scope, frames].append(networks.seconds(frames, scope) / frames)
    return {
        (scope, frames): Figures(min(times[scope, frames]), networks.peak_bytes(frames, scope))
        for scope, frames in cases
    }


def ratios(found: dict[tuple[str, int], Figures]) -> dict[str, float]:
    """The JSON object."""

    def time_ratio(scope: str, frames: int) -> float:
        return round(found[scope, frames].seconds_per_frame / found[scope, 16].seconds_per_frame, 4)

    return {
        "attention_64": time_ratio("attention", 64),
        "attention_128": time_ratio("attention", 128),
        "unet_128_time": time_ratio("unet", 128),
        "unet_128_memory": round(found["unet", 128].peak_bytes / found["unet", 16].peak_bytes, 4),
    }


def parse(description: str) -> argparse.Namespace:
    """The command line of a benchmark of `Networks`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--width", type=int, default=320, help="channels of the UNet's first level, a multiple of 32")
    parser.add_argument("--size", type=int, default=16, help="height and width of the latents")
    parser.add_argument("--repeats", type=int, default=3, help="times that each call is timed")
    return parser.parse_args()


def main() -> None:
    """Print the table and the ratios."""
    arguments = parse(__doc__.splitlines()[0])
    found = measure(Networks(arguments.width, arguments.size), arguments.repeats)
    print("scope      frames  ms per frame  peak MiB")
    for (scope, frames), figures in found.items():
        print(f"{scope:<10} {frames:>6} {1000 * figures.seconds_per_frame:>13.1f} {figures.peak_bytes / MIB:>9.1f}")
    print(json.dumps(ratios(found)))


if __name__ == "__main__":
    main()
