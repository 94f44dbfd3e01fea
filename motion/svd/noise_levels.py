"""The noise levels of Stable Video Diffusion, and what its UNet's answer means at each (arXiv:2206.00364, table 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motion.errors import SettingsError

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 700.0, 7.0
"""What the public weights are sampled with (sgm, scripts/sampling/configs/svd.yaml)."""


def edm_sigmas(
    num_steps: int, *, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO
) -> Tensor:
    """Falling noise levels, the last one 0: equation 5 of arXiv:2206.00364.

    Args:
        num_steps: at least 1; one step starts from `sigma_max`.
        sigma_min: last level above 0.
        sigma_max: first level.
        rho: how much of the steps goes to low levels.

    Returns:
        `num_steps + 1`, float32, on the CPU.

    Raises:
        SettingsError: no steps, or levels that don't fall.
    """
    if num_steps < 1 or not 0 < sigma_min < sigma_max or rho <= 0:
        raise SettingsError(
            f"Noise levels need at least 1 step and 0 < sigma_min < sigma_max, got {num_steps} steps from {sigma_max} "
            f"to {sigma_min} with rho {rho}. Correct these."
        )
    ramp = torch.linspace(0, 1, num_steps)
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(first + ramp * (last - first)) ** rho, torch.zeros(1)])


@dataclass(frozen=True)
class VScaling:
    """How noisy latents x at σ go into the UNet F, and what is predicted: c_skip·x + c_out·F(c_in·x, c_noise).

    Attributes:
        c_skip: 1 / (σ² + 1).
        c_out: -σ / √(σ² + 1).
        c_in: 1 / √(σ² + 1).
        c_noise: ln(σ) / 4, the UNet's timestep.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor

    @classmethod
    def at(cls, sigma: Tensor) -> VScaling:
        """The factors at levels σ > 0 of any shape."""
        power = sigma**2 + 1
        return cls(1 / power, -sigma / power.sqrt(), 1 / power.sqrt(), 0.25 * sigma.log())


def initial_scale(sigmas: Tensor) -> Tensor:
    """What standard normal noise is multiplied with to start from: √(σ₀² + 1)."""
    return (sigmas[0] ** 2 + 1).sqrt()
