"""Samplers over noise levels: Euler and Euler ancestral (arXiv:2206.00364), DPM-Solver++ 2M (arXiv:2211.01095)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from motion.errors import SettingsError
from motion.svd.choices import SAMPLER_NAMES

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents, σ) -> the clean latents that are predicted, of the same shape."""
OnStep = Callable[[int, int], None]
"""(steps done, steps in all)."""


@dataclass(frozen=True)
class Step:
    """One step of a sampler.

    Attributes:
        x: noisy latents at `sigma`.
        denoised: what is predicted of them.
        previous: what was predicted a step before; None in the first step.
        sigma_before: noise level of the step before; that of this one in the first step.
        sigma: noise level of `x`.
        sigma_next: the level to go to.
        draw: standard normal noise like `x`.
    """

    x: Tensor
    denoised: Tensor
    previous: Tensor | None
    sigma_before: Tensor
    sigma: Tensor
    sigma_next: Tensor
    draw: Callable[[], Tensor]


@dataclass(frozen=True)
class Sampled:
    """What sampling gives.

    Attributes:
        latents: the clean latents; where sampling was interrupted, what was predicted last.
        interrupted: sampling was stopped before its last step.
    """

    latents: Tensor
    interrupted: bool


def euler_step(step: Step) -> Tensor:
    """Along the line to what is predicted."""
    direction = (step.x - step.denoised) / step.sigma
    return step.x + direction * (step.sigma_next - step.sigma)


def euler_ancestral_step(step: Step) -> Tensor:
    """Below the next level, then up to it with new noise."""
    variance = step.sigma_next**2 * (step.sigma**2 - step.sigma_next**2) / step.sigma**2
    up = torch.minimum(step.sigma_next, variance.sqrt())
    down = (step.sigma_next**2 - up**2).sqrt()
    x = step.x + (step.x - step.denoised) / step.sigma * (down - step.sigma)
    return x + step.draw() * up if step.sigma_next > 0 else x


def dpmpp_2m_step(step: Step) -> Tensor:
    """Exponential integrator of second order: the prediction is extended from the last two, in steps of -ln σ."""
    if step.sigma_next == 0:
        return step.denoised
    length = (step.sigma / step.sigma_next).log()
    predicted = step.denoised
    if step.previous is not None:
        ratio = (step.sigma_before / step.sigma).log() / length
        predicted = step.denoised + (step.denoised - step.previous) / (2 * ratio)
    return step.sigma_next / step.sigma * step.x - torch.expm1(-length) * predicted


SAMPLERS: Mapping[str, Callable[[Step], Tensor]] = MappingProxyType(
    dict(zip(SAMPLER_NAMES, (euler_step, euler_ancestral_step, dpmpp_2m_step), strict=True))
)


def sample(
    sampler: str,
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    draw: Callable[[], Tensor],
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Sampled:
    """Walk down the noise levels.

    Args:
        sampler: one of `SAMPLERS`.
        denoise: the model, with guidance.
        x: noisy latents at the first level.
        sigmas: falling levels, the last one 0, on the CPU.
        draw: standard normal noise like `x`, for ancestral steps.
        on_step: called after each step.
        should_stop: asked before each step; true ends sampling there.

    Raises:
        SettingsError: unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise SettingsError(f"`sampler` must be one of {', '.join(SAMPLERS)}, got {sampler!r}. Choose one of these.")
    total = len(sigmas) - 1
    previous: Tensor | None = None
    for index in range(total):
        if should_stop is not None and should_stop():
            return Sampled(x if previous is None else previous, interrupted=True)
        denoised = denoise(x, sigmas[index])
        before = sigmas[max(0, index - 1)]
        step = Step(x, denoised, previous, before, sigmas[index], sigmas[index + 1], draw)
        x = SAMPLERS[sampler](step)
        previous = denoised
        if on_step is not None:
            on_step(index + 1, total)
    return Sampled(x, interrupted=False)
