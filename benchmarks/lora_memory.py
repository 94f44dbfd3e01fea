"""Memory of training a motion LoRA: `python -m benchmarks.lora_memory`.

First the arithmetic of `motion.training.lora_estimate` is held against the anonymous memory (`RssAnon` of
/proc/self/status, so Linux only) that a step of a narrow network really takes, with gradient checkpointing and without.
Then the same arithmetic for SD1.5 and v3 at full width, in the number formats of a CUDA GPU. What a step keeps is
counted at two small widths: it grows with the width in a straight line, since each tensor has the channels of its layer
or a fixed number of them. A third width shows whether it does.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.load_memory import PeakReader
from motion.checkpoints.motion_families import MOTION_FAMILIES
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from motion.training.activation_memory import ActivationBytes
from motion.training.frozen_checkpoint import FrozenCheckpoint
from motion.training.lora_estimate import BYTES_PER_TRAINED_NUMBER, MemoryEstimate, estimate_memory, estimate_time
from motion.training.lora_settings import MotionLoraSettings, lora_trainer_settings
from motion.training.lora_training import LoraNetworks
from motion.training.low_rank import motion_attention_layers
from motion.training.text import TextConditioner
from motion.training.video_dataset import DatasetSettings
from motion.training.vocabulary import make_vocabulary

FULL_WIDTH = 320
RANK = 64
GOAL_GIB = 12.0
BYTES_WITHOUT_OPTIMISER = 8
"""Of a trained number in the trial step that is measured: itself and its gradient."""
MIB, GIB = 2**20, 2**30
_MMAP_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
"""Of glibc: tensors that are freed go back to the system at once, so that what is measured is what is held."""


def module_config(width: int) -> MotionModuleConfig:
    """V3's layout for a UNet whose first level has `width` channels."""
    down = (width, 2 * width, 4 * width, 4 * width)
    return MotionModuleConfig(down, down[::-1], None, 32)


def make_networks(width: int, dtype: torch.dtype) -> LoraNetworks:
    """SD1.5 and v3, narrower, with random weights."""
    torch.manual_seed(0)
    vocabulary = make_vocabulary(("a",))
    text = ClipTextEncoder(
        ClipTextEncoderConfig(
            vocabulary_size=len(vocabulary), hidden_size=768, num_layers=1, num_heads=1, intermediate_size=64
        )
    )
    autoencoder = AutoencoderKL(AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1))
    unet, model = UNetModel(UNetConfig(model_channels=width)), MotionModel(module_config(width))
    for network in (text, autoencoder, unet, model):
        network.requires_grad_(False).eval()
    conditioner = TextConditioner(ClipTokenizer(vocabulary), text)
    frozen = FrozenCheckpoint(Path(), unet.to(dtype), autoencoder, conditioner)
    return LoraNetworks(frozen, model.to(dtype), MOTION_FAMILIES["sd15_v3"])


def settings_for(size: int, precision: str, *, checkpointed: bool) -> MotionLoraSettings:
    """A run on clips of 16 frames."""
    dataset = DatasetSettings(Path(), num_frames=16, size=(size, size))
    trainer = lora_trainer_settings(steps=1, precision=precision, sample_every=0)
    return MotionLoraSettings(
        "benchmark", Path(), Path(), dataset, trainer, rank=RANK, gradient_checkpointing=checkpointed
    )


def measure(networks: LoraNetworks, size: int, *, checkpointed: bool) -> tuple[float, float]:
    """(bytes by arithmetic, bytes that a step takes): activations, and the LoRA's numbers with their gradients."""
    settings = settings_for(size, "fp32", checkpointed=checkpointed)
    estimate = estimate_memory(settings, networks)
    factors = estimate.trained / BYTES_PER_TRAINED_NUMBER * BYTES_WITHOUT_OPTIMISER
    gc.collect()
    with PeakReader() as reader:
        estimate_time(settings, networks, num_captions=1)
    return estimate.activations.peak(checkpointed=checkpointed) + factors, reader.peak_bytes - reader.start_bytes


def count_as_on_cuda(width: int, size: int) -> ActivationBytes:
    """What a step in half precision keeps where norms run in float32, as under CUDA's autocast, not the CPU's."""
    networks = make_networks(width, torch.bfloat16)
    for network in (networks.frozen.unet, networks.motion_model):
        for module in network.modules():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                module.float().register_forward_pre_hook(_in_float32)
    return estimate_memory(settings_for(size, "bf16", checkpointed=True), networks).activations


def _in_float32(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() for value in args)


def reckon_full_width(size: int) -> tuple[MemoryEstimate, float]:
    """(memory of SD1.5 and v3 with a LoRA of rank 64, relative error of the line at a third width)."""
    narrow, wide, third = (count_as_on_cuda(width, size) for width in (32, 64, 128))
    slope = (wide + narrow.times(-1)).times(1 / 32)
    predicted = narrow + slope.times(128 - 32)
    error = predicted.peak(checkpointed=True) / third.peak(checkpointed=True) - 1
    with torch.device("meta"):
        unet, model, autoencoder = (
            UNetModel(UNetConfig()),
            MotionModel(module_config(FULL_WIDTH)),
            AutoencoderKL(AutoencoderConfig()),
        )
    numbers = [sum(parameter.numel() for parameter in network.parameters()) for network in (unet, model, autoencoder)]
    layers = motion_attention_layers(model).values()
    trained = RANK * sum(int(layer.in_features) + int(layer.out_features) for layer in layers)  # type: ignore[arg-type]
    print(
        f"UNet {numbers[0] / 1e6:.0f} M, motion module {numbers[1] / 1e6:.0f} M, autoencoder {numbers[2] / 1e6:.0f} M "
        f"(in float32), LoRA of rank {RANK} {trained / 1e6:.1f} M numbers"
    )
    weights = 2 * numbers[0] + 2 * numbers[1] + 4 * numbers[2]
    activations = narrow + slope.times(FULL_WIDTH - 32)
    return MemoryEstimate(weights, BYTES_PER_TRAINED_NUMBER * trained, activations, checkpointed=True), error


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=32, help="channels of the first level of the measured network")
    parser.add_argument("--measured-size", type=int, default=192, help="pixels of its clips")
    parser.add_argument("--size", type=int, default=512, help="pixels of the clips at full width")
    arguments = parser.parse_args()
    if _MMAP_THRESHOLD not in os.environ:  # read when a process starts
        os.environ[_MMAP_THRESHOLD] = str(64 * 1024)
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.lora_memory", *sys.argv[1:]])
    torch.set_num_threads(1)
    networks = make_networks(arguments.width, torch.float32)
    for checkpointed in (True, False):
        measure(networks, 64, checkpointed=checkpointed)  # what the libraries allocate once
        expected, found = measure(networks, arguments.measured_size, checkpointed=checkpointed)
        print(
            f"width {arguments.width}, {arguments.measured_size}×{arguments.measured_size}×16, fp32, gradient "
            f"checkpointing {'on ' if checkpointed else 'off'}: arithmetic {expected / MIB:.0f} MiB, measured "
            f"{found / MIB:.0f} MiB ({found / expected:.2f})"
        )
    del networks
    estimate, error = reckon_full_width(arguments.size)
    parts = estimate.activations
    print(f"line through widths 32 and 64, error at 128: {100 * error:+.2f}%")
    print(
        f"full width, {arguments.size}×{arguments.size}×16, half precision: block inputs {parts.inputs / GIB:.2f} GiB, "
        f"largest block {parts.largest_block / GIB:.2f} GiB, passing by {2 * parts.largest_tensor / GIB:.2f} GiB"
    )
    print(estimate.describe())
    print(f"goal: {GOAL_GIB:g} GiB, reached: {estimate.total() / GIB <= GOAL_GIB}")


if __name__ == "__main__":
    main()
