"""Motion LoRAs in a motion module for the length of a `with` block: merged, or per frame as branches."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from motion.checkpoints.low_rank import LowRankDelta
from motion.checkpoints.motion_lora_file import MotionLora
from motion.errors import CheckpointError
from motion.injection.low_rank_branch import FramesOfCall, FrameWeights, LowRankBranch

logger = logging.getLogger(__name__)


def check_motion_lora(motion_model: nn.Module, base: str, lora: MotionLora) -> None:
    """See that a motion LoRA and a motion module go together, before anything is changed.

    Args:
        motion_model: the module.
        base: the Stable Diffusion family that the module belongs to.
        lora: the LoRA.

    Raises:
        CheckpointError: the LoRA belongs to another family, or has a part for which the module has no layer, or one of
            another shape.
    """
    if lora.base not in (None, base):
        reason = f"This motion LoRA was made for {lora.base}, and the chosen motion module is for {base}."
        raise CheckpointError(lora.path, reason, f"Choose a motion LoRA for {base}, or take its tag out.")
    _fitting_deltas(motion_model, lora)


@contextmanager
def motion_loras_merged(motion_model: nn.Module, loras: Iterable[tuple[MotionLora, float]]) -> Iterator[None]:
    """Run a motion module with W + Σ weight · ΔW; on leaving, by whatever way, its parameters are the old objects.

    The base tensors are never written to: a changed parameter is replaced by a new one, and put back. That takes the
    memory of the changed weights a second time, where the module is: merged on the CPU and then copied to the device,
    they take nothing more there. Sums are in float32 and rounded once to the parameter's dtype; for weights stored in
    8 bits, which would lose most of a LoRA, take `motion_loras_hooked`.

    Args:
        motion_model: the module, on the device on which it stays until the block is left.
        loras: LoRA and weight, any number of them; they add up. Parts for a middle block are left out where the
            module has none.

    Raises:
        CheckpointError: a LoRA has a part for which the module has no layer, or one of another shape.
    """
    terms: dict[str, list[tuple[float, LowRankDelta]]] = defaultdict(list)
    for lora, weight in loras:
        for name, delta in _deltas_in_use(motion_model, lora):
            if weight != 0:
                terms[name].append((weight, delta))
    with ExitStack() as stack:
        for name, layer_terms in terms.items():
            layer = motion_model.get_submodule(name)
            base = layer.get_parameter("weight")
            stack.callback(setattr, layer, "weight", base)
            layer.weight = nn.Parameter(_merged(base, layer_terms), requires_grad=False)
        yield


@contextmanager
def motion_loras_hooked(
    motion_model: nn.Module,
    loras: Iterable[tuple[MotionLora, Sequence[float] | float]],
    frames_of_call: FramesOfCall | None = None,
) -> Iterator[None]:
    """Run a motion module with LoRAs whose weight differs from frame to frame; hooks only, removed by handle.

    A weight that is the same for all frames gives what `motion_loras_merged` gives.

    Args:
        motion_model: the module.
        loras: LoRA and one weight per frame of the clip, or one for all of them; any number of LoRAs, they add up.
        frames_of_call: which frames of the clip a call holds, for clips that run in windows.

    Raises:
        CheckpointError: a LoRA has a part for which the module has no layer, or one of another shape.
        InjectionError: inside the block: a call with frames that the clip doesn't have.
    """
    with ExitStack() as stack:
        for lora, weights in loras:
            frames = None if isinstance(weights, (int, float)) else FrameWeights(weights, frames_of_call)
            strength = float(weights) if isinstance(weights, (int, float)) else float(any(weights))
            for name, delta in _deltas_in_use(motion_model, lora):
                if strength != 0:
                    branch = LowRankBranch(delta, strength, frames)
                    stack.callback(motion_model.get_submodule(name).register_forward_hook(branch).remove)
        yield


def _deltas_in_use(motion_model: nn.Module, lora: MotionLora) -> list[tuple[str, LowRankDelta]]:
    """As `_fitting_deltas`, and the log says what is left out."""
    used = _fitting_deltas(motion_model, lora)
    if skipped := len(lora.deltas) - len(used):
        logger.info("%s: %d parts for a middle block left out; this motion module has none", lora.path, skipped)
    return used


def _fitting_deltas(motion_model: nn.Module, lora: MotionLora) -> list[tuple[str, LowRankDelta]]:
    """Layer and change, all checked before the first is used."""
    layers = dict(motion_model.named_modules())
    has_middle = any(name.startswith("mid_block.") for name in layers)
    used = [(name, delta) for name, delta in lora.deltas.items() if has_middle or not name.startswith("mid_block.")]
    for name, delta in used:
        weight = getattr(layers.get(name), "weight", None)
        lora.check_fits(delta, None if weight is None else tuple(weight.shape))
    return used


def _merged(base: Tensor, terms: Iterable[tuple[float, LowRankDelta]]) -> Tensor:
    """Base + Σ weight · scale · up @ down, in the base's dtype and on its device."""
    with torch.no_grad():
        total = base.to(torch.float32, copy=True)
        for weight, delta in terms:
            down, up = (factor.to(base.device, torch.float32) for factor in (delta.down, delta.up))
            total.addmm_(up, down, alpha=weight * delta.scale)
        return total.to(base.dtype)
