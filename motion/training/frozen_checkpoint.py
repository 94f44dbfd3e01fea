"""The frozen parts of a checkpoint that a stage trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from motion.checkpoints.stable_diffusion import open_checkpoint
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderKL
from motion.models.unet import UNetModel
from motion.training.autoencoder_task import SCALE_FACTOR
from motion.training.text import TextConditioner


@dataclass(frozen=True)
class FrozenCheckpoint:
    """Networks of an SD1 checkpoint, none of which learns.

    Attributes:
        path: the file.
        unet: image UNet.
        autoencoder: autoencoder.
        text: tokenizer and text encoder.
        scale_factor: of the latents.
    """

    path: Path
    unet: UNetModel
    autoencoder: AutoencoderKL
    text: TextConditioner
    scale_factor: float = SCALE_FACTOR


def load_frozen(path: Path, *, device: torch.device, dtype: torch.dtype = torch.float32) -> FrozenCheckpoint:
    """Read a checkpoint.

    Args:
        path: an SD1 checkpoint.
        device: of the UNet; autoencoder and text encoder follow it.
        dtype: of the UNet and the text encoder; the autoencoder, which overflows in fp16, stays in float32.

    Raises:
        CheckpointError: the file can't be read, or it is no SD1 checkpoint.
    """
    with open_checkpoint(path) as file:
        if file.base != "sd15":
            reason = f"Training must start from a Stable Diffusion 1 checkpoint, this one is {file.base}."
            raise CheckpointError(path, reason, "Choose an SD1.5 checkpoint.")
        text = TextConditioner(file.load_tokenizer(), file.load_text_encoder(device=device, dtype=dtype))
        return FrozenCheckpoint(
            path,
            file.load_unet(device=device, dtype=dtype),
            file.load_autoencoder(device=device, dtype=torch.float32),
            text,
        )
