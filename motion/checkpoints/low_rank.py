"""Low-rank changes of linear layers (LoRA; Hu et al. 2021, arXiv:2106.09685) as weight files hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from motion.checkpoints.file_formats import recognise
from motion.checkpoints.format_types import Shapes
from motion.checkpoints.weight_file import WeightFile
from motion.errors import CheckpointError

# `to_q_lora.down` and `to_q.lora.down` are diffusers', `lora_A.default` peft's, `lora_down` kohya's and A1111's.
_ROLE = re.compile(
    r"(?P<layer>.+?)"
    r"(?:(?:(?:_lora|\.lora|\.lora_linear_layer)\.(?P<role>down|up)"
    r"|\.lora_(?P<letter>down|up|A|B)(?:\.default)?)\.weight"
    r"|\.(?P<alpha>alpha))"
)
_INCOMPLETE = "The file is incomplete or damaged; get it from where it was published."


@dataclass(frozen=True)
class LowRankDelta:
    """ΔW = scale · up @ down of one linear layer.

    Attributes:
        key: name of `down` in its file, for messages.
        down: `rank in_features`, in the file's dtype, on the CPU.
        up: `out_features rank`, likewise.
        scale: alpha / rank where the file has an alpha, else 1.
    """

    key: str
    down: Tensor
    up: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it changes: (out_features, in_features)."""
        return self.up.shape[0], self.down.shape[1]


@dataclass(frozen=True)
class LowRankWeights:
    """The content of one file.

    Attributes:
        path: the file, for messages.
        deltas: layer -> change of its weight.
    """

    path: str
    deltas: Mapping[str, LowRankDelta]

    @property
    def rank(self) -> int:
        """Largest rank of its changes."""
        return max(delta.down.shape[0] for delta in self.deltas.values())

    def check_fits(self, delta: LowRankDelta, shape: tuple[int, ...] | None) -> None:
        """Compare a change with the layer that it is for.

        Args:
            delta: one of `deltas`.
            shape: (out_features, in_features) of that layer; None where there is no such layer.

        Raises:
            CheckpointError: they don't go together.
        """
        if shape != delta.shape:
            got = "there is none" if shape is None else f"it is {list(shape)} here"
            reason = f"`{delta.key}` changes a layer with weights of shape {list(delta.shape)}, but {got}."
            raise CheckpointError(self.path, reason, "Choose a file that was made for this family and width.")


@dataclass(frozen=True)
class LayerKeys:
    """Keys in the file of one layer's tensors, by role."""

    down: str
    up: str
    alpha: str | None


def split_role(key: str) -> tuple[str, str] | None:
    """Layer and role ("down", "up" or "alpha") that a key of any LoRA spelling names; None for other keys."""
    match = _ROLE.fullmatch(key)
    if match is None:
        return None
    role = match["role"] or match["letter"] or match["alpha"]
    return match["layer"], {"A": "down", "B": "up"}.get(role, role)


def pair_keys(
    shapes: Shapes, path: str | Path, layer_of: Callable[[str], str | None], wanted: str, remedy: str
) -> dict[str, LayerKeys]:
    """Layer -> keys of its tensors, in the file's order; no tensor data is read.

    Args:
        shapes: key -> shape of the file.
        path: the file, for messages.
        layer_of: name of a layer as the file spells it -> ours; None for a layer of another kind.
        wanted: what the file should be, with its article, for messages.
        remedy: what to do with a file that is something else.

    Raises:
        CheckpointError: tensors for anything else are in the file, one is there twice, or a pair is incomplete or of
            shapes that don't go together.
    """
    roles: dict[str, dict[str, str]] = {}
    strangers = []
    for key in shapes:
        name, role = split_role(key) or ("", "")
        layer = layer_of(name)
        if layer is None:
            strangers.append(key)
            continue
        first = roles.setdefault(layer, {}).setdefault(role, key)
        if first != key:
            raise CheckpointError(path, f"It holds one tensor twice, as `{first}` and as `{key}`.", _INCOMPLETE)
    if strangers:
        raise _refuse(shapes, path, strangers, bool(roles), wanted, remedy)
    for keys in roles.values():
        if missing := {"down", "up"} - keys.keys():
            there = next(iter(keys.values()))
            raise CheckpointError(path, f"`{there}` has no `{missing.pop()}` beside it.", _INCOMPLETE)
    layers = {layer: LayerKeys(keys["down"], keys["up"], keys.get("alpha")) for layer, keys in roles.items()}
    for layer_keys in layers.values():
        _check_pair(shapes, path, layer_keys)
    return layers


def layer_shapes(shapes: Shapes, layers: Mapping[str, LayerKeys]) -> dict[str, tuple[int, int]]:
    """Layer -> shape (out_features, in_features) of the weight that it changes, for pairs as `pair_keys` gives them."""
    return {layer: (shapes[keys.up][0], shapes[keys.down][1]) for layer, keys in layers.items()}


def read_deltas(file: WeightFile, layers: Mapping[str, LayerKeys]) -> dict[str, LowRankDelta]:
    """Read every layer's change into memory of its own.

    Raises:
        CheckpointError: a tensor has a wrong dtype, or holds NaN or infinity; an alpha is no single number.
    """
    return {layer: _read_delta(file, keys) for layer, keys in layers.items()}


def _check_pair(shapes: Shapes, path: str | Path, keys: LayerKeys) -> None:
    down, up = shapes[keys.down], shapes[keys.up]
    if len(down) != 2 or len(up) != 2 or down[0] != up[1] or 0 in (*down, *up):
        reason = (
            f"`{keys.down}` and `{keys.up}` must have shapes [rank, in] and [out, rank] of one rank, "
            f"got {list(down)} and {list(up)}."
        )
        raise CheckpointError(path, reason, _INCOMPLETE)


def _read_delta(file: WeightFile, keys: LayerKeys) -> LowRankDelta:
    scale = 1.0
    if keys.alpha is not None:
        alpha = _read_finite(file, keys.alpha)
        if alpha.numel() != 1:
            reason = f"`{keys.alpha}` must be one number, got shape {list(alpha.shape)}."
            raise CheckpointError(file.path, reason, _INCOMPLETE)
        scale = alpha.item() / file.shapes[keys.down][0]
    return LowRankDelta(keys.down, _read_finite(file, keys.down), _read_finite(file, keys.up), scale)


def _read_finite(file: WeightFile, key: str) -> Tensor:
    """A copy of one tensor: a mapped one would read from disk while sampling."""
    tensor = file[key]
    if tensor.is_complex() or not (tensor.is_floating_point() or key.endswith(".alpha")):
        raise CheckpointError(file.path, f"`{key}` must hold real numbers, got {tensor.dtype}.", _INCOMPLETE)
    if not torch.isfinite(tensor.float()).all():
        raise CheckpointError(file.path, f"`{key}` holds numbers that are not finite (NaN).", _INCOMPLETE)
    return tensor.clone().contiguous()


def _refuse(
    shapes: Shapes, path: str | Path, strangers: Iterable[str], partly: bool, wanted: str, remedy: str
) -> CheckpointError:
    stranger = next(iter(strangers))
    if partly:
        return CheckpointError(path, f"It is {wanted} in part only: `{stranger}` is something else.", remedy)
    found = recognise(shapes)
    # A file may be called so for the names in it and yet hold layers that we don't know.
    title = None if found is None or found.title in wanted else found.title
    what = f"with tensors such as `{stranger}`" if title is None else f"but {title}"
    return CheckpointError(path, f"This is not {wanted}, {what}.", remedy)
