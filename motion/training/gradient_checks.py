"""Gradients that no training survives, found early and by name: not finite, exploding, vanishing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from motion.errors import MotionError

EXPLOSION = 1000.0
"""A step whose gradient norm is that many times the median of the last ones counts as exploding."""
PATIENCE = 3
"""Exploding steps in a row that end a run; a single one is clipped."""
SILENT_STEPS = 50
"""Steps in a row without any gradient after which a parameter is reported."""
_HISTORY = 101
_SHOWN = 3


class TrainingError(MotionError):
    """A run can't go on: its gradients, its data or its folder; the last saved state is kept."""


class GradientChecks:
    """Looks at every gradient before the optimiser uses it.

    Args:
        parameters: name -> parameter, all that are trained.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self._norms: deque[float] = deque(maxlen=_HISTORY)
        self._exploding = 0
        self._silent = dict.fromkeys(parameters, 0)

    def check(self, step: int) -> tuple[float, list[str]]:
        """Check the gradients of step `step`.

        Returns:
            Their norm over all parameters, and the names of parameters that have had no gradient for exactly
            `SILENT_STEPS` steps.

        Raises:
            TrainingError: a gradient is NaN or infinite, or they have exploded for `PATIENCE` steps.
        """
        norms = self._parameter_norms()
        bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
        if bad:
            raise TrainingError(
                f"The gradients of step {step} must be finite, got NaN or infinity in {_some(bad)}. Lower the learning "
                "rate, use bf16 or fp32 in place of fp16, or run with --anomaly to see which operation made it.",
                status_code=500,
            )
        total = math.sqrt(sum(norm * norm for norm in norms.values()))
        self._check_explosion(step, total, norms)
        return total, self._newly_silent(norms)

    def _parameter_norms(self) -> dict[str, float]:
        names = [name for name, parameter in self._parameters.items() if parameter.grad is not None]
        gradients: list[Tensor] = [self._parameters[name].grad for name in names]  # type: ignore[misc]
        norms = torch.stack(torch._foreach_norm(gradients)).tolist() if gradients else []
        return dict.fromkeys(self._parameters, 0.0) | dict(zip(names, norms, strict=True))

    def _check_explosion(self, step: int, total: float, norms: Mapping[str, float]) -> None:
        usual = sorted(self._norms)[len(self._norms) // 2] if len(self._norms) >= _HISTORY // 4 else 0.0
        self._exploding = self._exploding + 1 if usual and total > EXPLOSION * usual else 0
        if self._exploding >= PATIENCE:
            largest = max(norms, key=lambda name: norms[name])
            raise TrainingError(
                f"The gradients explode: their norm at step {step} must be near {usual:.3g}, as before, got "
                f"{total:.3g}, most of it in {largest}. Lower the learning rate or raise the warm-up, and resume from "
                "the last state.",
                status_code=500,
            )
        if not self._exploding:
            self._norms.append(total)

    def _newly_silent(self, norms: Mapping[str, float]) -> list[str]:
        found = []
        for name, norm in norms.items():
            self._silent[name] = 0 if norm > 0 else self._silent[name] + 1
            if self._silent[name] == SILENT_STEPS:
                found.append(name)
        return found


def anomaly_found(error: RuntimeError, step: int) -> TrainingError:
    """What to say when anomaly mode has stopped a backward pass."""
    return TrainingError(
        f"The gradients of step {step} must be finite, got NaN: {error} The warning before this says where that "
        "operation stands. Lower the learning rate, or change what it is given there.",
        status_code=500,
    )


def describe_silent(names: list[str], step: int) -> str:
    """What to say of parameters without a gradient."""
    return (
        f"At step {step} the gradient has vanished for {SILENT_STEPS} steps in {_some(names)}: these do not learn. "
        "They may be outside the graph, behind a layer that is zero, or below what fp16 can hold (use bf16 or fp32)."
    )


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
