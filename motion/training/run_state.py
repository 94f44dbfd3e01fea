"""What a run holds between two steps, as the tensors of a state file: weights, average and optimiser in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from motion.training.gradient_checks import TrainingError

_OF_OPTIMIZER = ("step", "exp_avg", "exp_avg_sq")


def pack_state(
    parameters: Mapping[str, nn.Parameter],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    losses: Sequence[float],
) -> dict[str, Tensor]:
    """Copies on the CPU, which later steps don't change.

    Args:
        parameters: name -> parameter.
        average: name -> its average.
        optimizer: AdamW of the parameters.
        losses: of all steps so far.
    """
    tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for name, parameter in parameters.items():
        tensors[f"weights.{name}"] = _copy(parameter)
        tensors[f"average.{name}"] = _copy(average[name])
        for kind, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{kind}.{name}"] = _copy(value)
    return tensors


@torch.no_grad()
def unpack_state(
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> list[float]:
    """Put a packed state back.

    Returns:
        The losses of its steps.

    Raises:
        TrainingError: it is of other parameters; nothing is changed.
    """
    _check_parameters(tensors, parameters)
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"weights.{name}"])
        average[name].copy_(tensors[f"average.{name}"])
        kinds = [kind for kind in _OF_OPTIMIZER if f"optimizer.{kind}.{name}" in tensors]
        if kinds:
            # Copies: what was read is mapped from a file that later states replace. `step` stays on the CPU.
            optimizer.state[parameter] = {
                kind: tensors[f"optimizer.{kind}.{name}"].to("cpu" if kind == "step" else parameter.device, copy=True)
                for kind in kinds
            }
    losses: list[float] = tensors["losses"].tolist()
    return losses


def _check_parameters(tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    before = {key.removeprefix("weights."): list(tensors[key].shape) for key in tensors if key.startswith("weights.")}
    now = {name: list(parameter.shape) for name, parameter in parameters.items()}
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise TrainingError(
                f"The saved state must be of this run's parameters, got shape {before.get(name)} for {name}, which "
                f"has {now.get(name)} here. Choose another folder, or go back to the version that began this run."
            )


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
