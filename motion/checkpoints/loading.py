"""From a file's tensors into a network, without a second copy in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from motion.errors import CheckpointError
from motion.models.cast_layers import CAST_LAYERS, is_narrow

_SHOWN_KEYS = 3
_REMEDY = "The file is incomplete or of another kind than its keys say; get it from where it was published."


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    storage_dtype: torch.dtype | None = None,
    path: str | Path,
) -> None:
    """Fill a network from a file and freeze it: no gradients, evaluation mode.

    Build `module` under `torch.device("meta")`, so that it holds no memory before. Each tensor is copied once, out of
    the mapped file: the peak is the size of the network in `dtype`.

    Args:
        module: network whose state-dict keys are exactly those of `tensors`.
        tensors: key -> tensor, read when asked for.
        device: where the network goes.
        dtype: type of its floating-point tensors; None keeps the file's.
        storage_dtype: type of the weights of its `CAST_LAYERS`, such as `torch.float8_e4m3fn`; None is `dtype`. A
            weight with a number that 8 bits don't reach (448 in e4m3) stays in `dtype`.
        path: the file, for messages.

    Raises:
        CheckpointError: missing or unexpected keys, or a tensor of another shape.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    _check_keys(expected.keys() - tensors.keys(), "lacks", path)
    _check_keys(tensors.keys() - expected.keys(), "has unexpected", path)
    narrow = None if storage_dtype == dtype else storage_dtype
    stored = frozenset() if narrow is None else _cast_weights(module)
    state = {}
    for key, shape in expected.items():
        tensor = tensors[key]
        if tuple(tensor.shape) != shape:
            reason = f"`{key}` must have shape {list(shape)}, got {list(tensor.shape)}."
            raise CheckpointError(path, reason, _REMEDY)
        wanted = dtype if tensor.is_floating_point() and dtype is not None else tensor.dtype
        if narrow is not None and key in stored and _reaches(narrow, tensor):
            wanted = narrow
        # A mapped tensor would read from disk while sampling, and break when the file changes: always a copy.
        state[key] = tensor.to(device=device, dtype=wanted, copy=True).contiguous()
    module.load_state_dict(state, strict=True, assign=True)
    module.requires_grad_(False).eval().to(device)


def _cast_weights(module: nn.Module) -> frozenset[str]:
    """Keys of the weights that their layers cast when they run."""
    return frozenset(f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, CAST_LAYERS))


def _reaches(dtype: torch.dtype, tensor: Tensor) -> bool:
    """True when the largest number of `tensor` is within the range of `dtype`."""
    wide = tensor.half() if is_narrow(tensor) else tensor
    return max(abs(float(bound)) for bound in torch.aminmax(wide)) <= torch.finfo(dtype).max


def _check_keys(keys: set[str], verb: str, path: str | Path) -> None:
    if keys:
        raise CheckpointError(path, f"The file {verb} {_name_some(sorted(keys))}.", _REMEDY)


def _name_some(keys: Sequence[str]) -> str:
    shown = ", ".join(f"`{key}`" for key in keys[:_SHOWN_KEYS])
    rest = len(keys) - _SHOWN_KEYS
    return f"{len(keys)} tensors: {shown}" + (f" and {rest} more" if rest > 0 else "")
