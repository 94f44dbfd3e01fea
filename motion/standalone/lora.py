"""LoRA from `<lora:name:weight>`: weights are changed for a job and put back bit for bit."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motion.checkpoints.weight_file import open_weights
from motion.errors import MotionError, SettingsError
from motion.standalone import shared
from motion.standalone.extra_networks import ExtraNetwork, ExtraNetworkParams
from motion.standalone.lora_keys import lora_targets

logger = logging.getLogger(__name__)

LORA_SUFFIXES = (".safetensors", ".pt", ".ckpt")


@dataclass(frozen=True)
class LoraRequest:
    """One tag: `<lora:name:weight>`, `<lora:name:te:unet>` or `<lora:name:te=…:unet=…>`.

    Attributes:
        name: file name without its ending.
        te_weight: strength in the text encoder.
        unet_weight: strength in the UNet.
    """

    name: str
    te_weight: float
    unet_weight: float

    @classmethod
    def from_params(cls, params: ExtraNetworkParams) -> LoraRequest:
        """Read a tag's arguments.

        Raises:
            SettingsError: the name is missing or a weight is no number.
        """
        if not params.positional or not params.positional[0]:
            raise SettingsError(f"Expected <lora:name:weight>, got <lora:{':'.join(params.items)}>. Add the name.")
        name, *weights = params.positional
        default = shared.opts.extra_networks_default_multiplier
        te = weights[0] if weights else default
        te = params.named.get("te", te)
        unet = params.named.get("unet", weights[1] if len(weights) > 1 else te)
        try:
            return cls(name, float(te), float(unet))
        except ValueError:
            raise SettingsError(
                f"Expected a number as weight of LoRA {name}, got {te!r} and {unet!r}. Write <lora:{name}:0.8>."
            ) from None


def find_lora_files(folder: str | Path) -> dict[str, Path]:
    """Name -> file, for all LoRA files under a folder; the first of equal names wins."""
    paths = (Path(path) for path in shared.walk_files(str(folder), LORA_SUFFIXES))
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(path.stem, path)
    return found


def weight_delta(tensors: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """ΔW = α/r · up · down of one layer (Hu et al. 2021, arXiv:2106.09685), fp32, in the layer's shape.

    Args:
        tensors: "lora_up.weight" [out, r, …], "lora_down.weight" [r, in, …], optional "lora_mid.weight" [r, r, kh, kw]
            (convolutions with a core, arXiv:2108.06098) and "alpha".
        shape: shape of the layer's weight.

    Raises:
        SettingsError: a tensor is missing, or the shapes don't fit the layer.
    """
    try:
        up, down = tensors["lora_up.weight"].float(), tensors["lora_down.weight"].float()
    except KeyError as missing:
        raise SettingsError(f"Expected lora_up and lora_down for each layer, {missing} is missing.") from None
    rank = down.shape[0]
    scale = float(tensors["alpha"]) / rank if "alpha" in tensors else 1.0
    try:
        if "lora_mid.weight" in tensors:
            core = tensors["lora_mid.weight"].float()
            delta = torch.einsum("o r, r s h w, s i -> o i h w", up.flatten(1), core, down.flatten(1))
        else:
            delta = (up.flatten(1) @ down.flatten(1)).reshape(shape)
        if delta.shape != shape:
            raise RuntimeError
    except RuntimeError:
        raise SettingsError(
            f"Expected a LoRA layer for a weight {list(shape)}, got up {list(up.shape)} and down {list(down.shape)}. "
            "The LoRA was made for another kind of model."
        ) from None
    return delta * scale


class ExtraNetworkLora(ExtraNetwork):
    """Handler of `<lora:…>`. Originals are kept while any LoRA is in effect, and copied back after it."""

    def __init__(self) -> None:
        super().__init__("lora")
        self._originals: dict[nn.Module, torch.Tensor] = {}
        self._active: list[LoraRequest] = []

    @torch.no_grad()
    def activate(self, p: Any, params_list: list[ExtraNetworkParams]) -> None:
        """Bring exactly these LoRA files into effect; unknown names and unfit files become comments on `p`."""
        requests: list[LoraRequest] = []
        for params in params_list:
            try:
                requests.append(LoraRequest.from_params(params))
            except SettingsError as error:
                p.comment(str(error))
        if requests == self._active and self._belongs_to(p.sd_model):
            return
        self.restore()
        files = find_lora_files(shared.cmd_opts.lora_dir) if requests else {}
        for request in requests:
            path = files.get(request.name)
            if path is None:
                p.comment(f"LoRA {request.name} was not found in {shared.cmd_opts.lora_dir}; it has no effect.")
                continue
            try:
                self._apply(p, request, path)
            except MotionError as error:
                p.comment(f"LoRA {request.name} has no effect: {error}")
        self._active = requests

    def deactivate(self, p: Any) -> None:
        """Put the original weights back."""
        self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        """Copy the original weights back: equal to the last bit to those before."""
        for module, original in self._originals.items():
            module.get_parameter("weight").copy_(original)
        self._originals.clear()
        self._active = []

    def _belongs_to(self, sd_model: Any) -> bool:
        known = set(sd_model.model.diffusion_model.modules()) | set(sd_model.cond_stage_model.modules())
        return known.issuperset(self._originals)

    def _apply(self, p: Any, request: LoraRequest, path: Path) -> None:
        model = p.sd_model
        targets = lora_targets(model.model.diffusion_model, model.cond_stage_model)
        with open_weights(path) as file:
            layers: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
            for key, tensor in file.items():
                layer, _, kind = key.partition(".")
                layers[layer][kind] = tensor
            # All deltas come before the first change: an unfit file changes nothing.
            deltas = {
                layer: weight_delta(tensors, targets[layer].get_parameter("weight").shape)
                for layer, tensors in layers.items()
                if layer in targets
            }
        if len(deltas) < len(layers):
            p.comment(f"LoRA {request.name}: {len(layers) - len(deltas)} of {len(layers)} layers don't fit this model.")
        for layer, delta in deltas.items():
            weight = targets[layer].get_parameter("weight")
            self._originals.setdefault(targets[layer], weight.detach().clone())
            strength = request.te_weight if layer.startswith("lora_te") else request.unet_weight
            weight.copy_((weight.float() + strength * delta.to(weight.device)).to(weight.dtype))
        logger.info("LoRA %s changes %d layers", request.name, len(deltas))
