"""Clips as latents with their captions: encoded once, kept on disk, drawn from in every step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from motion.models.autoencoder import AutoencoderKL
from motion.training.frames import to_frames, to_pictures
from motion.training.run_folder import RunFolder

_PIXELS_AT_ONCE = 32 * 64 * 64
"""Of frames that pass through the autoencoder together: its first layers take some kilobytes of memory for each."""


@dataclass(frozen=True)
class CaptionedClip:
    """One clip of a data set.

    Attributes:
        frames: uint8 `f h w 3`.
        captions: ways to say what it shows, one of which is taken each time.
    """

    frames: npt.NDArray[np.uint8]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class LatentBank:
    """A data set as latents.

    Attributes:
        latents: `n f c h w`, scaled to a standard deviation of about 1.
        captions: of each clip.
    """

    latents: Tensor
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.captions)

    def digest(self) -> str:
        """What tells this data set from others: the SHA-256 of latents and captions, in hex."""
        digest = hashlib.sha256(self.latents.contiguous().numpy().tobytes())
        digest.update(json.dumps(self.captions).encode())
        return digest.hexdigest()

    @property
    def all_captions(self) -> list[str]:
        """Every caption, and the empty one of unconditional training."""
        return ["", *(caption for captions in self.captions for caption in captions)]

    def draw(self, rng: np.random.Generator, count: int, unconditional_share: float) -> tuple[Tensor, list[str]]:
        """`count` clips `b f c h w` and a caption of each, empty for some.

        Where the bank is large enough no clip comes twice in a draw.
        """
        chosen = rng.choice(len(self), count, replace=count > len(self))
        captions = []
        for index in chosen:
            ways = self.captions[int(index)]
            caption = ways[int(rng.integers(len(ways)))]
            captions.append("" if rng.random() < unconditional_share else caption)
        return self.latents[torch.from_numpy(chosen)], captions

    def save(self, folder: RunFolder, name: str, key: str) -> None:
        """Write the bank into a run's folder under `name`, marked with `key`."""
        metadata = {"key": key, "captions": json.dumps(self.captions)}
        tensors = {"latents": self.latents.contiguous()}
        folder.write(folder.path / name, lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    def load(cls, path: Path, key: str) -> LatentBank | None:
        """A saved bank that was marked with `key`, or None."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key:
                    return None
                captions = tuple(tuple(ways) for ways in json.loads(metadata["captions"]))
                return cls(file.get_tensor("latents"), captions)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None


@torch.no_grad()
def encode_clips(autoencoder: AutoencoderKL, clips: Iterable[CaptionedClip], scale_factor: float) -> LatentBank:
    """Encode a data set; the most likely latents are taken.

    Args:
        autoencoder: the checkpoint's.
        clips: at least one; all of one number of frames and size.
        scale_factor: of the checkpoint's family.
    """
    parameter = next(autoencoder.parameters())
    latents, captions = [], []
    for clip in clips:
        pictures = to_pictures(clip.frames).to(parameter)
        parts = torch.split(pictures, _frames_at_once(*pictures.shape[2:]))
        encoded = [autoencoder.encode(part).mode() * scale_factor for part in parts]
        latents.append(torch.cat(encoded).float().cpu())
        captions.append(clip.captions)
    # In the layout in which a saved bank comes back: convolutions round differently in another.
    return LatentBank(torch.stack(latents).contiguous(), tuple(captions))


@torch.no_grad()
def decode_latents(autoencoder: AutoencoderKL, latents: Tensor, scale_factor: float) -> npt.NDArray[np.uint8]:
    """Latents `f c h w` as uint8 frames `f h w 3`."""
    parameter = next(autoencoder.parameters())
    parts = torch.split((latents / scale_factor).to(parameter), _frames_at_once(*(8 * n for n in latents.shape[2:])))
    return np.concatenate([to_frames(autoencoder.decode(part)) for part in parts])


def _frames_at_once(height: int, width: int) -> int:
    return max(1, _PIXELS_AT_ONCE // (height * width))
