"""AnimateDiff's three stages on a frozen checkpoint: domain adapter, motion module, motion LoRA (arXiv:2307.04725)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from motion.injection import injected
from motion.injection.domain_adapter import spatial_layers
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetModel
from motion.training.activation_checkpoints import blocks_checkpointed
from motion.training.denoising import Stage
from motion.training.low_rank import TrainableLowRank, motion_attention_layers
from motion.training.run_folder import RunFolder

Changes = Callable[[], AbstractContextManager[Any]]
Sheet = Callable[[], Image.Image | None]


def new_motion_model(config: MotionModuleConfig, seed: int) -> MotionModel:
    """A motion model with seeded first weights; its output projections are zero, so that it starts as the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MotionModel(config)


def start_from(motion_model: MotionModel, path: Path) -> None:
    """Fill a motion model with the weights of a file, which may have more of them, such as a middle block's."""
    start = load_file(path)
    motion_model.load_state_dict({key: start[key].float() for key in motion_model.state_dict()})


def adapter_stage(unet: UNetModel, rank: int, sheet: Sheet, file_name: str, seed: int) -> Stage:
    """Stage 1: low-rank branches in the spatial attention learn the look of the footage, on single frames."""
    branches = TrainableLowRank(spatial_layers(unet), rank, device=next(unet.parameters()).device, seed=seed)
    return _low_rank_stage("domain adapter", branches, branches.applied, sheet, file_name, {"rank": rank})


def module_stage(
    unet: UNetModel,
    motion_model: MotionModel,
    num_frames: int,
    sheet: Sheet,
    file_name: str,
    *,
    around: Changes = nullcontext,
) -> Stage:
    """Stage 2: the motion module learns on clips; `around` holds what else is in the UNet, such as the adapter."""
    parameters = dict(motion_model.named_parameters())

    @contextmanager
    def changes() -> Iterator[None]:
        with around(), injected(unet, motion_model, num_frames):
            yield

    def export(folder: RunFolder) -> list[Path]:
        return [_write(folder, file_name, {k: _half(v) for k, v in motion_model.state_dict().items()})]

    facts = {"motion_module": repr(motion_model.config)}
    return Stage("motion module", parameters, changes, sheet, export, facts)


def lora_stage(
    unet: UNetModel,
    motion_model: MotionModel,
    num_frames: int,
    rank: int,
    sheet: Sheet,
    file_name: str,
    *,
    seed: int,
    checkpointed: bool = False,
) -> Stage:
    """Stage 3: low-rank branches in the temporal attention learn one kind of motion on few clips.

    Args:
        unet: frozen.
        motion_model: frozen, and rank-wise changed by what is learned.
        num_frames: frames of a clip.
        rank: of the branches.
        sheet: draws samples.
        file_name: of the LoRA, in the original key spelling.
        seed: of the first weights.
        checkpointed: trade a second forward pass for memory.
    """
    device = next(unet.parameters()).device
    branches = TrainableLowRank(motion_attention_layers(motion_model), rank, device=device, seed=seed)

    @contextmanager
    def changes() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(injected(unet, motion_model, num_frames))
            stack.enter_context(branches.applied())
            if checkpointed:
                stack.enter_context(blocks_checkpointed(unet))
            yield

    return _low_rank_stage("motion LoRA", branches, changes, sheet, file_name, {"rank": rank})


def _low_rank_stage(
    name: str,
    branches: TrainableLowRank,
    changes: Changes,
    sheet: Sheet,
    file_name: str,
    facts: Mapping[str, Any],
) -> Stage:
    def export(folder: RunFolder) -> list[Path]:
        return [_write(folder, file_name, branches.tensors())]

    def weigh(weights: Tensor) -> None:
        branches.weights = weights

    return Stage(name, branches.parameters(), changes, sheet, export, facts, weigh)


def _write(folder: RunFolder, name: str, tensors: Mapping[str, Tensor]) -> Path:
    path = folder.path / name
    folder.write(path, lambda temporary: save_file(dict(tensors), temporary))
    return path


def _half(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float16).contiguous()
