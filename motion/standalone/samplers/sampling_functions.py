"""The loops: from noise to pictures by a denoiser.

Each takes `model(x, level, **extra_args)`, x of shape b c h w and its schedule, calls `callback({"i": step, …})` once a
step and returns x at the end. `noise()` returns the next unit noise, b c h w, of the request's own generators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Model = Callable[..., Tensor]
Noise = Callable[[], Tensor]
StepCallback = Callable[[dict[str, Any]], None]


@torch.no_grad()
def sample_euler(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    *,
    extra_args: Mapping[str, Any],
    callback: StepCallback,
    noise: Noise,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler steps of the probability-flow ODE: Karras et al. 2022 (arXiv:2206.00364), algorithm 2 without line 7."""
    gamma_max = min(s_churn / max(len(sigmas) - 1, 1), math.sqrt(2) - 1)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        gamma = gamma_max if s_tmin <= sigma <= s_tmax else 0.0
        sigma_hat = sigma * (1 + gamma)
        if s_churn > 0:
            # Drawn in every step, also outside [s_tmin, s_tmax]: seeds count on the number of draws.
            added = noise() * s_noise
            if gamma > 0:
                x = x + added * (sigma_hat**2 - sigma**2) ** 0.5
        denoised = model(x, _per_row(sigma_hat, x), **extra_args)
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised})
        x = x + (x - denoised) / sigma_hat * (sigma_next - sigma_hat)
    return x


@torch.no_grad()
def sample_euler_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    *,
    extra_args: Mapping[str, Any],
    callback: StepCallback,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler steps to below the next σ, then noise up to it; split as in DDPM's posterior (arXiv:2006.11239, eq. 7)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, _per_row(sigma, x), **extra_args)
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = x + (x - denoised) / sigma * (sigma_down - sigma)
        if sigma_next > 0:
            x = x + noise() * s_noise * sigma_up
    return x


@torch.no_grad()
def sample_dpmpp_2m(
    model: Model, x: Tensor, sigmas: Tensor, *, extra_args: Mapping[str, Any], callback: StepCallback
) -> Tensor:
    """DPM-Solver++(2M), arXiv:2211.01095, algorithm 2 with α = 1 and λ = −log σ; the last step is of first order."""
    previous: tuple[Tensor, Tensor] | None = None  # denoised and λ of the step before
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, _per_row(sigma, x), **extra_args)
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        lam, lam_next = -sigma.log(), -sigma_next.log()
        target = denoised
        if previous is not None and sigma_next > 0:
            denoised_before, lam_before = previous
            ratio = (lam - lam_before) / (lam_next - lam)
            target = (1 + 1 / (2 * ratio)) * denoised - 1 / (2 * ratio) * denoised_before
        x = sigma_next / sigma * x - torch.expm1(lam - lam_next) * target
        previous = denoised, lam
    return x


@torch.no_grad()
def sample_lcm(
    model: Model, x: Tensor, sigmas: Tensor, *, extra_args: Mapping[str, Any], callback: StepCallback, noise: Noise
) -> Tensor:
    """Multistep consistency sampling: arXiv:2303.01469, algorithm 1."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, _per_row(sigma, x), **extra_args)
        callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        x = denoised + sigma_next * noise() if sigma_next > 0 else denoised
    return x


@torch.no_grad()
def sample_ddim(
    model: Model,
    x: Tensor,
    timesteps: Tensor,
    *,
    alphas_cumprod: Tensor,
    extra_args: Mapping[str, Any],
    callback: StepCallback,
    noise: Noise,
    eta: float = 0.0,
) -> Tensor:
    """DDIM, arXiv:2010.02502, equation 12.

    Args:
        model: predicts ε from x and one timestep per row.
        x: at the noise level of the last timestep.
        timesteps: rising whole timesteps. The lowest is where sampling ends, so n of them make n − 1 steps, as the web
            UI does it.
        alphas_cumprod: ᾱ of every timestep.
        extra_args: keyword arguments of each model call.
        callback: called in each step.
        noise: called in each step when eta is not 0.
        eta: 0 is deterministic, 1 is DDPM.
    """
    alphas = alphas_cumprod[timesteps].cpu().double().tolist()
    levels = list(zip(timesteps.tolist(), alphas, strict=True))
    for i, ((timestep, alpha), (_, alpha_next)) in enumerate(pairwise(reversed(levels))):
        eps = model(x, x.new_full((len(x),), timestep), **extra_args)
        sigma = eta * math.sqrt((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next))
        denoised = (x - math.sqrt(1 - alpha) * eps) / math.sqrt(alpha)
        x = math.sqrt(alpha_next) * denoised + math.sqrt(1 - alpha_next - sigma**2) * eps
        if eta:
            x = x + sigma * noise()
        callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": denoised})
    return x


def ancestral_split(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(σ to step down to, σ of the noise to add) so that both together are `sigma_next`."""
    up = eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5
    up = torch.minimum(sigma_next, up)
    return (sigma_next**2 - up**2) ** 0.5, up


def _per_row(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma * x.new_ones(len(x))
