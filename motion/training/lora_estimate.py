"""What training a motion LoRA will take, before it begins: memory by arithmetic, time by a trial step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motion.training.activation_memory import ActivationBytes, reckon_activations
from motion.training.denoising import DenoisingSettings, DenoisingTask, Stage
from motion.training.latent_bank import LatentBank
from motion.training.lora_settings import MotionLoraSettings
from motion.training.lora_training import DTYPES, MAX_PREVIEWS, LoraNetworks
from motion.training.motion_stages import lora_stage
from motion.training.preview import Preview
from motion.training.randomness import StepRandom

BYTES_PER_TRAINED_NUMBER = 24
"""float32: the number, its average, two of AdamW, its gradient, and one more while the optimiser steps."""
_GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a training step on the device, bytes.

    Attributes:
        weights: of the frozen networks.
        trained: the LoRA's numbers, with optimiser, average and gradients.
        activations: what a step keeps and passes by, with checkpoints and without.
        checkpointed: whether there are checkpoints.
    """

    weights: int
    trained: int
    activations: ActivationBytes
    checkpointed: bool

    def total(self, *, checkpointed: bool | None = None) -> float:
        """All of it; with or without checkpoints, or as it is."""
        chosen = self.checkpointed if checkpointed is None else checkpointed
        return self.weights + self.trained + self.activations.peak(checkpointed=chosen)

    def describe(self) -> str:
        """One line in GiB."""
        peaks = {kind: self.activations.peak(checkpointed=kind) / _GIB for kind in (True, False)}
        other = "without" if self.checkpointed else "with"
        others = self.total(checkpointed=not self.checkpointed) / _GIB
        return (
            f"Memory: about {self.total() / _GIB:.2f} GiB (frozen networks {self.weights / _GIB:.2f}, LoRA and "
            f"optimiser {self.trained / _GIB:.2f}, activations {peaks[self.checkpointed]:.2f}; {other} gradient "
            f"checkpointing {others:.2f} in all), and what the device's own libraries take."
        )


@dataclass(frozen=True)
class TimeEstimate:
    """How long a run takes.

    Attributes:
        seconds_per_step: measured.
        steps: of the run.
        sheet_seconds: reckoned for all sample sheets together.
    """

    seconds_per_step: float
    steps: int
    sheet_seconds: float

    def describe(self) -> str:
        """One line."""
        total = self.seconds_per_step * self.steps + self.sheet_seconds
        return (
            f"Time: about {duration(total)} ({self.seconds_per_step:.2g} s a step, measured, times {self.steps}"
            f"{f', and {duration(self.sheet_seconds)} for sample sheets' if self.sheet_seconds else ''})."
        )


def duration(seconds: float) -> str:
    """A length of time in the largest fitting units."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def estimate_memory(settings: MotionLoraSettings, networks: LoraNetworks) -> MemoryEstimate:
    """Reckon a step's memory; what is kept for the backward pass is counted on small pictures.

    Args:
        settings: the run.
        networks: what it trains on.
    """
    unet, device = networks.frozen.unet, next(networks.frozen.unet.parameters()).device
    stage = _stage(settings, networks, checkpointed=False)
    rows = settings.batch_size * settings.dataset.num_frames
    context = _context(networks).to(device).expand(rows, -1, -1)
    dtype = DTYPES[settings.trainer.precision]

    def forward(height: int, width: int) -> Tensor:
        x = torch.zeros(rows, 4, height, width, device=device)
        with stage.changes(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            predicted: Tensor = unet(x, torch.full((rows,), 500, device=device), context)
            return predicted.float().square().mean()

    frozen = [*_weights(networks.motion_model), *_weights(unet)]
    trained = list(stage.parameters.values())
    width, height = settings.dataset.size
    activations = reckon_activations(unet, [*frozen, *trained], forward, height // 8, width // 8)
    return MemoryEstimate(
        weights=sum(_num_bytes(weight) for weight in (*frozen, *_weights(networks.frozen.autoencoder))),
        trained=BYTES_PER_TRAINED_NUMBER * sum(parameter.numel() for parameter in trained),
        activations=activations,
        checkpointed=settings.gradient_checkpointing,
    )


def estimate_time(settings: MotionLoraSettings, networks: LoraNetworks, num_captions: int) -> TimeEstimate:
    """Measure a step on made-up latents and reckon the rest.

    Args:
        settings: the run.
        networks: what it trains on.
        num_captions: different captions of the data set, some of which are on each sample sheet.
    """
    trainer = settings.trainer
    seconds = trainer.accumulation * _trial_seconds(settings, networks)
    sheets = trainer.steps // trainer.sample_every if trainer.sample_every else 0
    # A step is a forward and a backward pass, which is two, or three with checkpoints; a sampler's step two forwards.
    forward = seconds / trainer.accumulation / settings.batch_size / (4 if settings.gradient_checkpointing else 3)
    sheet = min(num_captions, MAX_PREVIEWS) * Preview.steps * 2 * forward
    return TimeEstimate(seconds, trainer.steps, sheets * sheet)


def _trial_seconds(settings: MotionLoraSettings, networks: LoraNetworks) -> float:
    """Of one part of a batch, forward and backward; an accelerator gets one to warm up."""
    device = next(networks.frozen.unet.parameters()).device
    width, height = settings.dataset.size
    shape = (settings.batch_size, settings.dataset.num_frames, 4, height // 8, width // 8)
    bank = LatentBank(torch.zeros(shape), (("",),) * settings.batch_size)
    stage = _stage(settings, networks, checkpointed=settings.gradient_checkpointing)
    denoising = DenoisingSettings(settings.batch_size, schedules=(networks.family.beta_schedule,))
    task = DenoisingTask(networks.frozen.unet, _OneContext(_context(networks)), bank, denoising, stage)
    dtype = DTYPES[settings.trainer.precision]
    seconds = 0.0
    for trial in range(1 if device.type == "cpu" else 2):
        began = time.perf_counter()
        with task.applied():
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss = task.loss(StepRandom.of(settings.trainer.seed, trial))
            loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device
        seconds = time.perf_counter() - began
    return seconds


def _stage(settings: MotionLoraSettings, networks: LoraNetworks, *, checkpointed: bool) -> Stage:
    return lora_stage(
        networks.frozen.unet,
        networks.motion_model,
        settings.dataset.num_frames,
        settings.rank,
        lambda: None,
        settings.file_name,
        seed=0,
        checkpointed=checkpointed,
    )


class _OneContext:
    """The context of the empty caption for all of them."""

    def __init__(self, context: Tensor) -> None:
        self._context = context

    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Contexts `b n d`."""
        return self._context.expand(len(captions), -1, -1)


@torch.no_grad()
def _context(networks: LoraNetworks) -> Tensor:
    return networks.frozen.text.contexts([""])


def _weights(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
