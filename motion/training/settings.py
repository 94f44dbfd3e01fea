"""How a training run steps: optimiser, precision, and when it saves and shows."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from motion.errors import SettingsError

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of the loop, whatever is trained.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: peak of the schedule: a linear warm-up, then half a cosine down to `final_rate` of the peak.
        warmup_steps: steps of the warm-up.
        final_rate: learning rate that the last step comes near to, as a part of the peak.
        weight_decay: AdamW's.
        beta2: AdamW's decay of squared gradients.
        ema_decay: decay of the average of the weights that is shown and exported; 0 turns it off. The average of the
            first steps is short, min(decay, (1 + step) / (10 + step)), so that it forgets the start.
        max_grad_norm: gradients are scaled down to this norm.
        accumulation: parts in which each step's batch is run.
        precision: arithmetic of the networks, of PRECISIONS; weights and optimiser stay in float32.
        save_every: steps between states from which a run resumes.
        sample_every: steps between sample sheets; 0 makes none.
        seed: of everything random.
        anomaly: name the forward operation behind a bad gradient; several times slower.

    Raises:
        SettingsError: a value out of range.
    """

    steps: int = 1000
    learning_rate: float = 1e-4
    warmup_steps: int = 50
    final_rate: float = 0.05
    weight_decay: float = 1e-2
    beta2: float = 0.99
    ema_decay: float = 0.995
    max_grad_norm: float = 1.0
    accumulation: int = 1
    precision: str = "fp32"
    save_every: int = 250
    sample_every: int = 250
    seed: int = 0
    anomaly: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value, wanted = getattr(self, name), type(low)
            if type(value) not in (int, wanted) or not low <= value <= high:
                kind = "a whole number" if wanted is int else "a number"
                raise SettingsError(
                    f"`{name}` must be {kind} from {low:g} to {high:g}, got {value!r}. Choose one in this range."
                )
        if self.precision not in PRECISIONS:
            raise SettingsError(
                f"`precision` must be one of {', '.join(PRECISIONS)}, got {self.precision!r}. Choose one of these."
            )

    def rate_at(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        return self.learning_rate * (self.final_rate + (1.0 - self.final_rate) * cosine)

    def ema_at(self, step: int) -> float:
        """Decay of the average after step `step`, counted from 0."""
        return min(self.ema_decay, (1.0 + step) / (10.0 + step)) if self.ema_decay else 0.0

    def describe(self) -> dict[str, Any]:
        """Field -> value, for the run's record."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 10_000_000),
    "learning_rate": (1e-8, 1.0),
    "warmup_steps": (0, 1_000_000),
    "final_rate": (0.0, 1.0),
    "weight_decay": (0.0, 1.0),
    "beta2": (0.5, 0.99999),
    "ema_decay": (0.0, 0.99999),
    "max_grad_norm": (1e-6, 1e6),
    "accumulation": (1, 1024),
    "save_every": (1, 1_000_000),
    "sample_every": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
}
"""Field -> lowest and highest value, both of the field's type."""
