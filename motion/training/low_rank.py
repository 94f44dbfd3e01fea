"""Low-rank branches that learn, beside frozen linear layers (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TrainableLowRank:
    """One pair of factors for each of some linear layers; y becomes y + up(down(x)) inside `applied()`.

    `up` starts at zero, so that training starts from the network as it is.

    Attributes:
        factors: name of a layer -> (down, up).
        weights: None, or what each clip's branches are multiplied by; clips follow one another in a layer's rows.

    Args:
        layers: name -> linear layer, which has `in_features` and `out_features`.
        rank: rank of all pairs.
        device: where the factors are.
        seed: of the first values of `down`.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], rank: int, *, device: torch.device | None = None, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._layers = dict(layers)
        self.weights: Tensor | None = None
        self.factors: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name, layer in layers.items():
            width_in, width_out = int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
            down = torch.randn(rank, width_in, generator=generator) / math.sqrt(width_in)
            up = torch.zeros(width_out, rank)
            self.factors[name] = (nn.Parameter(down.to(device)), nn.Parameter(up.to(device)))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Name in the original spelling -> factor."""
        named = {}
        for layer, (down, up) in self.factors.items():
            named[f"{original_spelling(layer)}.down.weight"] = down
            named[f"{original_spelling(layer)}.up.weight"] = up
        return named

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the layers with their branches; forward hooks, removed by handle. `weights` hold for one such block."""
        with ExitStack() as stack:
            stack.callback(setattr, self, "weights", None)
            for name, layer in self._layers.items():
                stack.callback(layer.register_forward_hook(_Branch(self, *self.factors[name])).remove)
            yield

    def tensors(self, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
        """The factors as files have them, on the CPU."""
        return {key: value.detach().to("cpu", dtype).contiguous() for key, value in self.parameters().items()}


class _Branch:
    def __init__(self, owner: TrainableLowRank, down: nn.Parameter, up: nn.Parameter) -> None:
        self._owner = owner
        self._down = down
        self._up = up

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x = args[0].to(output.dtype)
        branch = F.linear(F.linear(x, self._down.to(output.dtype)), self._up.to(output.dtype))
        weights = self._owner.weights
        if weights is not None:
            branch = branch * weights.to(branch).repeat_interleave(len(branch) // len(weights)).view(-1, 1, 1)
        return output + branch


def original_spelling(layer: str) -> str:
    """Name of an attention's linear layer -> its name in AnimateDiff's LoRA files.

    "….attention_blocks.0.to_q" becomes "….attention_blocks.0.processor.to_q_lora", "to_out.0" becomes "to_out_lora".
    """
    attention, _, projection = layer.removesuffix(".0").rpartition(".")
    return f"{attention}.processor.{projection}_lora"


def motion_attention_layers(motion_model: nn.Module) -> dict[str, nn.Module]:
    """Name -> linear layer of all temporal attentions: those that a motion LoRA changes."""
    endings = (".to_q", ".to_k", ".to_v", ".to_out.0")
    return {
        name: module
        for name, module in motion_model.named_modules()
        if ".attention_blocks." in name and name.endswith(endings)
    }
