"""Last stage of a small checkpoint: its decoder alone, on latents that stay as they are.

Stable Diffusion's decoders were improved in the same way after its UNet was trained (ft-EMA, ft-MSE): whatever was
learned on the latents keeps its meaning, and pictures become sharper.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motion.models.autoencoder import AutoencoderKL
from motion.training.autoencoder_task import SCALE_FACTOR, DrawFrames, comparison_sheet, picture_loss
from motion.training.frames import to_pictures
from motion.training.image_stage import TEXT_SUFFIX
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder

LATENT_NOISE = 0.055
"""Deviation of the noise on the latents, as a part of theirs: the UNet's are not quite those of the encoder."""

_ABSOLUTE_WEIGHT = 1.0
_TRAINED = ("decoder.", "post_quant_conv.")
_PREFIX = "first_stage_model."


class DecoderTask:
    """A `TrainingTask`: latents of the frozen encoder back to pictures.

    Args:
        autoencoder: the checkpoint's.
        checkpoint: its file, beside which its yaml and the folder of its text encoder are.
        name: of the checkpoint that is written, which has the new decoder.
        draw_frames: the data set.
        batch_size: pictures of one part of a batch.
    """

    def __init__(
        self, autoencoder: AutoencoderKL, checkpoint: Path, name: str, draw_frames: DrawFrames, *, batch_size: int
    ) -> None:
        self.network = autoencoder
        self._checkpoint = checkpoint
        self._name = name
        self._draw = draw_frames
        self._batch_size = batch_size

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The decoder's and those of the convolution before it."""
        found = {name: value for name, value in self.network.named_parameters() if name.startswith(_TRAINED)}
        for parameter in found.values():
            parameter.requires_grad_(True)
        return found

    def applied(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()

    def loss(self, random: StepRandom) -> Tensor:
        """Error of a batch's pictures."""
        pictures = to_pictures(self._draw(random.choices, self._batch_size))
        with torch.no_grad():
            latents = self.network.encode(pictures).mode()
        noise = torch.randn(latents.shape, generator=random.tensors) * (LATENT_NOISE / SCALE_FACTOR)
        return picture_loss(self.network.decode(latents + noise) - pictures, _ABSOLUTE_WEIGHT)

    def sample_sheet(self) -> Image.Image:
        """Pictures of the data set, and below each what comes back."""
        return comparison_sheet(self.network, self._draw)

    @torch.no_grad()
    def export(self, folder: RunFolder) -> list[Path]:
        """Write the checkpoint with the new decoder, its yaml and the folder of its text encoder."""
        tensors = load_file(self._checkpoint)
        for name, parameter in self.parameters().items():
            tensors[_PREFIX + name] = parameter.detach().to(tensors[_PREFIX + name].dtype).contiguous()
        path = folder.path / f"{self._name}.safetensors"
        folder.write(path, lambda temporary: save_file(tensors, temporary))
        yaml = self._checkpoint.with_suffix(".yaml").read_text(encoding="utf-8")
        text, copied = (file.with_name(file.stem + TEXT_SUFFIX) for file in (self._checkpoint, path))
        folder.guarded(f"The folder {copied.name}", lambda: shutil.copytree(text, copied, dirs_exist_ok=True))
        return [path, folder.save_text(f"{self._name}.yaml", yaml), copied]

    def describe(self) -> dict[str, Any]:
        """Batch and noise."""
        return {"stage": "decoder", "batch_size": self._batch_size, "latent_noise": LATENT_NOISE}
