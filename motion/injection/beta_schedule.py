"""Noise schedules of motion modules as the ᾱ table that samplers read."""

from __future__ import annotations

import torch
from torch import Tensor

from motion.protocols import BetaSchedule

# Exactly zero would make the first σ infinite; this is what web UIs put in its place.
LAST_ALPHA_OF_ZERO_SNR = 4.8973451890853435e-08


def betas(schedule: BetaSchedule) -> Tensor:
    """β of every timestep: float64 [num_timesteps]."""
    if schedule.kind == "linear":
        return torch.linspace(schedule.start, schedule.end, schedule.num_timesteps, dtype=torch.float64)
    if schedule.kind == "scaled_linear":
        root = (schedule.start**0.5, schedule.end**0.5)
        return torch.linspace(*root, schedule.num_timesteps, dtype=torch.float64) ** 2
    raise ValueError(f"kind must be 'linear' or 'scaled_linear', got {schedule.kind!r}")


def alphas_cumprod(schedule: BetaSchedule) -> Tensor:
    """ᾱ_t = Π (1 - β_s), s ≤ t (DDPM, arXiv 2006.11239, eq. 4): float32 [num_timesteps], computed in float64."""
    return torch.cumprod(1.0 - betas(schedule), dim=0).float()


def chosen_schedule(name: str, of_family: BetaSchedule) -> BetaSchedule | None:
    """The schedule that a request asks for, of `motion.settings.BETA_SCHEDULES`; None leaves the host's own."""
    schedules = {
        "auto": of_family,
        "host": None,
        "linear": BetaSchedule("linear"),
        "scaled linear": BetaSchedule("scaled_linear"),
        "SDXL 0.020": BetaSchedule("scaled_linear", end=0.020),
    }
    return schedules[name]


def has_zero_terminal_snr(alphas: Tensor) -> bool:
    """True when the last timestep of an ᾱ table is noise alone."""
    return bool(alphas[-1] <= 2 * LAST_ALPHA_OF_ZERO_SNR)


def with_zero_terminal_snr(alphas: Tensor) -> Tensor:
    """An ᾱ table shifted and scaled in √ᾱ to end in noise alone (Lin et al., arXiv 2305.08891, algorithm 1).

    It is computed in the table's own dtype, as web UIs do, so that their σ and ours agree.
    """
    root = alphas.sqrt()
    table: Tensor = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    table[-1] = LAST_ALPHA_OF_ZERO_SNR
    return table
