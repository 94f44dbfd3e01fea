"""What a user chooses to train a motion LoRA."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from motion.errors import SettingsError
from motion.training.settings import TrainerSettings
from motion.training.video_dataset import DatasetSettings

_NAME = re.compile(r"\w[\w .+-]{0,99}")
MAX_RANK = 512
WARMUP_STEPS = 50


@dataclass(frozen=True)
class MotionLoraSettings:
    """One run.

    Attributes:
        name: of the LoRA's file, without its suffix.
        module: motion module that the LoRA is for.
        checkpoint: Stable Diffusion 1 checkpoint to train on.
        dataset: videos and how they are cut.
        trainer: how the loop steps.
        rank: of the LoRA's matrices.
        batch_size: clips of one part of a batch.
        gradient_checkpointing: trade a second forward pass for most of the memory.
        both_ways: every other clip is played backwards, for which the LoRA counts as -1: it learns its own opposite.
        module_family: id of the family to take the module for; None lets its content and name decide.

    Raises:
        SettingsError: a value out of range, or a name that is no file name.
    """

    name: str
    module: Path
    checkpoint: Path
    dataset: DatasetSettings
    trainer: TrainerSettings
    rank: int = 64
    batch_size: int = 1
    gradient_checkpointing: bool = True
    both_ways: bool = False
    module_family: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        for field, high in (("rank", MAX_RANK), ("batch_size", 64)):
            value = getattr(self, field)
            if not 1 <= value <= high:
                raise SettingsError(f"`{field}` must be from 1 to {high}, got {value}. Choose one in this range.")

    @property
    def file_name(self) -> str:
        """Of the LoRA."""
        return f"{self.name}.safetensors"


def check_name(name: str) -> None:
    """Refuse what can't name a file of its own.

    Raises:
        SettingsError: it has other signs than letters, digits, spaces and . + - _, or none or over 100 of them.
    """
    if _NAME.fullmatch(name) is None or name.endswith((" ", ".")):
        raise SettingsError(
            f"`name` must be made of letters, digits, spaces and . + - _, start with a letter or digit and not end "
            f"with a space or dot, got {name!r}. Choose such a name for the LoRA's file."
        )


def lora_trainer_settings(*, steps: int, precision: str, save_every: int = 100, **fields: float) -> TrainerSettings:
    """Settings of the loop as they are good for a low-rank branch: no weight decay, a short warm-up.

    Args:
        steps: as in `TrainerSettings`.
        precision: likewise.
        save_every: likewise.
        fields: further ones.
    """
    return TrainerSettings(
        steps=steps,
        precision=precision,
        save_every=save_every,
        warmup_steps=min(WARMUP_STEPS, steps // 10),
        weight_decay=0.0,
        **fields,  # type: ignore[arg-type]
    )
