"""The objective of all later stages: predict the noise in latents of stills or clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor, nn

from motion.errors import SettingsError
from motion.injection.beta_schedule import alphas_cumprod
from motion.protocols import BetaSchedule
from motion.training.latent_bank import LatentBank
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder

SD15_SCHEDULE = BetaSchedule("scaled_linear")
"""Of Stable Diffusion 1's own training."""


class Contexts(Protocol):
    """Captions to contexts: `TextConditioner`, or `CachedContexts` where the encoder is frozen."""

    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Contexts `b n d`."""
        ...


@dataclass(frozen=True)
class DenoisingSettings:
    """How latents are noised and weighed.

    Attributes:
        batch_size: clips (or stills) of one part of a batch.
        unconditional_share: part of the captions that are left out, for guidance.
        min_snr_gamma: losses are weighed by min(SNR, γ) / SNR (Hang et al. 2023, arXiv:2303.09556); 0: alike.
        snr_floor: above 0 losses are weighed by 1 + share / (SNR + floor) instead: at a share of 1 the error of the
            velocity v (Salimans and Ho 2022, arXiv:2202.00512, appendix D), capped where next to nothing is left of the
            clean latents. Places and moves are decided in the noisiest steps, whose errors of the noise are too small
            to be heard.
        velocity_share: the share. Below 1 more is left for outlines, which are decided later.
        noise_bias: timesteps are drawn as 1 - (1 - u)^bias of the schedule, u uniform: above 1 the noisy ones are more
            frequent.
        schedules: noise schedules, one of which is taken for each clip.
        both_ways: every other clip is played backwards, and the stage's branches are told to count as -1 for it.
        graded: the data set's "clips" are pairs of a still as it is and as it should look; each is mixed from the two
            at a strength by chance, at which the stage's branches count: their strength is then that of the look.
    """

    batch_size: int
    unconditional_share: float = 0.1
    min_snr_gamma: float = 5.0
    snr_floor: float = 0.0
    velocity_share: float = 1.0
    noise_bias: float = 1.0
    schedules: tuple[BetaSchedule, ...] = (SD15_SCHEDULE,)
    both_ways: bool = False
    graded: bool = False


@dataclass(frozen=True)
class Stage:
    """What one stage trains and what comes of it.

    Attributes:
        name: of the stage.
        parameters: name -> parameter.
        changes: makes the context in which the UNet runs: motion modules injected, branches hooked.
        sheet: draws what the present weights make; None for nothing.
        export: writes the files.
        facts: what else tells one run from another, in JSON.
        weigh: told what the stage's branches count for each clip of the next batch; None where they can't be weighed.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    changes: Callable[[], AbstractContextManager[Any]]
    sheet: Callable[[], Image.Image | None]
    export: Callable[[RunFolder], list[Path]]
    facts: Mapping[str, Any]
    weigh: Callable[[Tensor], None] | None = None


class DenoisingTask:
    """A `TrainingTask`: mean squared error of the predicted noise (DDPM, arXiv:2006.11239, eq. 14), weighed by SNR.

    Timesteps are stratified over the batch: each clip has its own slice of the schedule, which keeps small batches
    from jumping. All frames of a clip share the timestep; each has noise of its own.

    Args:
        unet: the checkpoint's UNet.
        contexts: of the captions in `bank`.
        bank: the data set.
        settings: how latents are noised.
        stage: what is trained.

    Raises:
        SettingsError: `settings` weigh branches, and the stage trains a whole module.
    """

    def __init__(
        self, unet: nn.Module, contexts: Contexts, bank: LatentBank, settings: DenoisingSettings, stage: Stage
    ) -> None:
        for name in ("both_ways", "graded"):
            if getattr(settings, name) and stage.weigh is None:
                raise SettingsError(f"`{name}` is for low-rank branches, the stage trains a {stage.name}. Turn it off.")
        self._unet = unet
        self._contexts = contexts
        self._bank = bank
        self._settings = settings
        self._stage = stage
        self._tables = torch.stack([alphas_cumprod(schedule) for schedule in settings.schedules])
        self._device = next(unet.parameters()).device

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The stage's."""
        return self._stage.parameters

    def applied(self) -> AbstractContextManager[Any]:
        """The stage's changes."""
        return self._stage.changes()

    def loss(self, random: StepRandom) -> Tensor:
        """Weighed error of one batch, inside `applied()`."""
        settings = self._settings
        clean, captions = self._bank.draw(random.choices, settings.batch_size, settings.unconditional_share)
        if self._stage.weigh is not None and (settings.both_ways or settings.graded):
            weights = _strengths(len(clean), random) if settings.graded else _alternating(len(clean), random)
            self._stage.weigh(weights)
            clean = (_mixed if settings.graded else _played)(clean, weights[:, None, None, None, None])
        num_frames = clean.shape[1]
        timesteps = self._draw_timesteps(len(clean), random)
        table = torch.from_numpy(random.choices.integers(len(self._tables), size=len(clean)))
        alphas = self._tables[table, timesteps]
        noise = torch.randn(clean.shape, generator=random.tensors)
        share = alphas[:, None, None, None, None]
        noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
        contexts = repeat(self._contexts.contexts(captions).to(self._device), "b n d -> (b f) n d", f=num_frames)
        predicted = self._unet(
            rearrange(noisy, "b f c h w -> (b f) c h w").to(self._device),
            repeat(timesteps, "b -> (b f)", f=num_frames).to(self._device),
            contexts,
        )
        target = rearrange(noise, "b f c h w -> (b f) c h w").to(predicted)
        errors = rearrange((predicted - target).float().square(), "(b f) c h w -> b (f c h w)", f=num_frames).mean(1)
        weighed: Tensor = (errors * self._weights(alphas).to(errors)).mean()
        return weighed

    def sample_sheet(self) -> Image.Image | None:
        """The stage's."""
        return self._stage.sheet()

    def export(self, folder: RunFolder) -> list[Path]:
        """The stage's."""
        return self._stage.export(folder)

    def describe(self) -> dict[str, Any]:
        """Stage, data set and how it is noised."""
        settings = self._settings
        return {
            "stage": self._stage.name,
            "clips": list(self._bank.latents.shape),
            "data": self._bank.digest(),
            "batch_size": settings.batch_size,
            "unconditional_share": settings.unconditional_share,
            "min_snr_gamma": settings.min_snr_gamma,
            "snr_floor": settings.snr_floor,
            "velocity_share": settings.velocity_share,
            "noise_bias": settings.noise_bias,
            "schedules": [repr(schedule) for schedule in settings.schedules],
            "both_ways": settings.both_ways,
            "graded": settings.graded,
            **self._stage.facts,
        }

    def _draw_timesteps(self, count: int, random: StepRandom) -> Tensor:
        total = self._tables.shape[1]
        slices = torch.randperm(count, generator=random.tensors)
        within = torch.rand(count, generator=random.tensors)
        places = 1 - (1 - (slices + within) / count) ** self._settings.noise_bias
        return (places * total).long().clamp(max=total - 1)

    def _weights(self, alphas: Tensor) -> Tensor:
        """Of the error of each clip, for a UNet that predicts noise."""
        gamma, floor = self._settings.min_snr_gamma, self._settings.snr_floor
        snr = alphas / (1 - alphas)
        if floor:
            return 1 + self._settings.velocity_share / (snr + floor)
        return snr.clamp(max=gamma) / snr if gamma else torch.ones_like(alphas)


def _alternating(count: int, random: StepRandom) -> Tensor:
    """1 and -1 in turn, `b`; chance decides which is first, so that a clip alone goes either way."""
    weights = torch.ones(count)
    weights[int(random.choices.integers(2)) :: 2] = -1.0
    return weights


def _played(clips: Tensor, weights: Tensor) -> Tensor:
    """Clips `b f c h w`, those of a negative weight backwards."""
    return torch.where(weights < 0, clips.flip(1), clips)


def _strengths(count: int, random: StepRandom) -> Tensor:
    """Strengths from 0 to 1, `b`, two thirds on average: a weak one has little to teach."""
    return 1 - torch.rand(count, generator=random.tensors).square()


def _mixed(pairs: Tensor, strengths: Tensor) -> Tensor:
    """Stills `b 1 c h w` from pairs `b 2 c h w`."""
    return torch.lerp(pairs[:, :1], pairs[:, 1:], strengths)
