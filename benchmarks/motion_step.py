"""One denoising step of a clip beside diffusers': `python -m benchmarks.motion_step [--width 64] [--size 16]`.

A step is a UNet call with cond and uncond of 16 frames, on random weights in the shapes of SD1.5 and AnimateDiff v3,
narrower where `--width` is below 320. Ours, diffusers' UNetMotionModel and our UNet without motion take turns, in fp32
and then in bf16; a time is the least of `--repeats`. Multiply-adds are counted while they run, and the rate of the
machine's fp32 matrix product is measured between the turns, as the limit that a step can't pass. Prints a table and, as
its last line, one JSON object: our time over diffusers', and the share that the motion modules take of our time over
their share of the multiply-adds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNetMotionModel
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.long_clip import Networks, parse
from motion.injection import injected

NUM_FRAMES = 16
MATRIX_SIZE = 2048
OURS, OURS_STILL, DIFFUSERS = "ours", "ours without motion", "diffusers"


@dataclass(frozen=True)
class Step:
    """One row of the table.

    Attributes:
        seconds: time of a UNet call.
        multiply_adds: of that call.
    """

    seconds: float
    multiply_adds: int


class Steps:
    """The three steps in one precision.

    Args:
        networks: ours; they are cast.
        diffusers: the other one; it is cast.
    """

    def __init__(self, networks: Networks, diffusers: UNetMotionModel, dtype: torch.dtype) -> None:
        self._networks = networks
        self._diffusers = diffusers.to(dtype)
        networks.unet.to(dtype)
        networks.motion.to(dtype)
        x, timesteps, context = networks.inputs(NUM_FRAMES)
        self._x, self._timesteps, self._context = x.to(dtype), timesteps, context.to(dtype)

    def calls(self) -> dict[str, Callable[[], Tensor]]:
        """Name -> UNet call."""
        return {OURS: self._ours, DIFFUSERS: self._theirs, OURS_STILL: lambda: self._ours(moving=False)}

    def _ours(self, moving: bool = True) -> Tensor:
        networks = self._networks
        with injected(networks.unet, networks.motion, NUM_FRAMES) if moving else nullcontext():
            out: Tensor = networks.unet(self._x, self._timesteps, self._context)
        return out

    def _theirs(self) -> Tensor:
        clips = self._x.unflatten(0, (2, NUM_FRAMES)).transpose(1, 2)  # (b f) c h w -> b c f h w
        out: Tensor = self._diffusers(clips, self._timesteps[0], encoder_hidden_states=self._context).sample
        return out


def diffusers_unet(width: int) -> UNetMotionModel:
    """Diffusers' network in the shapes of SD1.5 and v3, or narrower."""
    return UNetMotionModel(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        cross_attention_dim=768 * width // 320,
        motion_max_seq_length=32,
        use_motion_mid_block=False,
    ).eval()


def matrix_rate() -> float:
    """Multiply-adds per second of one large fp32 matrix product."""
    a, b = torch.randn(2, MATRIX_SIZE, MATRIX_SIZE)
    began = time.perf_counter()
    a @ b
    return MATRIX_SIZE**3 / (time.perf_counter() - began)


def multiply_adds(call: Callable[[], Tensor]) -> int:
    """Multiply-adds of the matrix products, convolutions and attentions of a call."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: _attention_flops})
    with counter:
        call()
    return int(counter.get_total_flops()) // 2


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


@torch.inference_mode()
def measure(steps: Steps, repeats: int) -> tuple[dict[str, Step], float]:
    """Name -> step, and the greatest matrix rate seen."""
    calls = steps.calls()
    counted = {name: multiply_adds(call) for name, call in calls.items()}  # also what libraries set up once
    times: dict[str, list[float]] = {name: [] for name in calls}
    rates = []
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
            rates.append(matrix_rate())
    return {name: Step(min(times[name]), counted[name]) for name in calls}, max(rates)


def share_over_flops(found: dict[str, Step]) -> tuple[float, float]:
    """Share of the motion modules in our time, and in our multiply-adds."""
    ours, still = found[OURS], found[OURS_STILL]
    return 1 - still.seconds / ours.seconds, 1 - still.multiply_adds / ours.multiply_adds


def show(name: str, found: dict[str, Step], rate: float) -> None:
    """Print the rows of one precision."""
    print(f"{name}: an fp32 matrix product runs {rate / 1e9:.1f} G multiply-adds per second here")
    for label, step in found.items():
        part = step.multiply_adds / step.seconds / rate
        giga = step.multiply_adds / 1e9
        print(f"  {label:<20} {step.seconds:>8.3f} s {giga:>9.1f} G multiply-adds {part:>6.1%} of that rate")
    print("  motion modules: {:.1%} of our time, {:.1%} of our multiply-adds".format(*share_over_flops(found)))


def main() -> None:
    """Print the table and the ratios."""
    arguments = parse(__doc__.splitlines()[0])
    networks, diffusers = Networks(arguments.width, arguments.size), diffusers_unet(arguments.width)
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        found[name], rate = measure(Steps(networks, diffusers, dtype), arguments.repeats)
        show(name, found[name], rate)
    ratio = {name: steps[OURS].seconds / steps[DIFFUSERS].seconds for name, steps in found.items()}
    of_time, of_flops = share_over_flops(found["fp32"])
    figures = {
        "ratio_vs_diffusers": ratio["fp32"],
        "ratio_vs_diffusers_bf16": ratio["bf16"],
        "motion_share_over_flops": of_time / of_flops,
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
