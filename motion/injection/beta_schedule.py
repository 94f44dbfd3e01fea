"""Noise schedules of motion modules as the ᾱ table that samplers read."""

from __future__ import annotations

import torch
from torch import Tensor

from motion.protocols import BetaSchedule


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
