"""`modules.sd_schedulers`: noise levels of the k-diffusion-style samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from motion.standalone.samplers.denoisers import DiscreteSchedule, append_zero


@dataclass(frozen=True)
class Scheduler:
    """One entry of the scheduler list.

    Attributes:
        name: lower-case name.
        label: name shown to users.
        function: (n, sigma_min, sigma_max, device, …) -> n + 1 falling sigmas, the last one 0; None: the sampler's own.
        default_rho: the `rho` that the function uses when none is given, -1 when it takes none.
        need_inner_model: the function takes `inner_model`, the denoiser.
        aliases: further names.
    """

    name: str
    label: str
    function: Callable[..., torch.Tensor] | None
    default_rho: float = -1
    need_inner_model: bool = False
    aliases: tuple[str, ...] = ()


def uniform_sigmas(
    n: int, sigma_min: float, sigma_max: float, inner_model: DiscreteSchedule, device: torch.device
) -> torch.Tensor:
    """Evenly spaced timesteps of the model, the lowest included."""
    return inner_model.get_sigmas(n).to(device)


def sgm_uniform_sigmas(
    n: int, sigma_min: float, sigma_max: float, inner_model: DiscreteSchedule, device: torch.device
) -> torch.Tensor:
    """Evenly spaced timesteps that stop one step above the lowest."""
    start, end = (
        inner_model.sigma_to_t(torch.tensor(sigma).to(inner_model.sigmas)) for sigma in (sigma_max, sigma_min)
    )
    timesteps = torch.linspace(float(start), float(end), n + 1, device=inner_model.sigmas.device)[:-1]
    return append_zero(inner_model.t_to_sigma(timesteps)).to(device)


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, device: torch.device, rho: float = 7.0) -> torch.Tensor:
    """Evenly spaced σ^(1/ρ): Karras et al. 2022 (arXiv:2206.00364), equation 5."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return append_zero((high + torch.linspace(0, 1, n) * (low - high)) ** rho).to(device)


def exponential_sigmas(n: int, sigma_min: float, sigma_max: float, device: torch.device) -> torch.Tensor:
    """Evenly spaced log σ."""
    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n).exp()).to(device)


schedulers: tuple[Scheduler, ...] = (
    Scheduler("automatic", "Automatic", None),
    Scheduler("uniform", "Uniform", uniform_sigmas, need_inner_model=True),
    Scheduler("karras", "Karras", karras_sigmas, default_rho=7.0),
    Scheduler("exponential", "Exponential", exponential_sigmas),
    Scheduler("sgm_uniform", "SGM Uniform", sgm_uniform_sigmas, need_inner_model=True, aliases=("SGMUniform",)),
)

schedulers_map: Mapping[str, Scheduler] = MappingProxyType(
    {name: entry for entry in schedulers for name in (entry.name, entry.label)}
)
"""Name or label -> scheduler."""
