"""Stage 1 of a small checkpoint: the autoencoder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.training.frames import to_frames, to_pictures
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.video import contact_sheet

SCALE_FACTOR = 0.18215
"""Stable Diffusion 1's: latents times this have a standard deviation of about 1."""
FILE_NAME = "autoencoder.safetensors"
_SHOWN = 16
_FIRST_LOGVAR = -6.0
_LUMINANCE = (0.299, 0.587, 0.114)
CHROMA_WEIGHT = 2.0
CROPPED_SHARE = 0.75
"""Of the steps; crops are cheaper and hold as much to learn."""

DrawFrames = Callable[[np.random.Generator, int], "npt.NDArray[np.uint8]"]
"""(random numbers, how many) -> frames `n h w 3` of a data set."""


class AutoencoderTask:
    """Pictures through 8 times smaller latents of 4 channels and back.

    The loss is a squared error that counts chroma more than luminance, a little of the absolute one, which keeps edges
    sharp, and a small KL term. Luminance varies most in pictures: plain errors would teach it first, and colours last.

    Args:
        config: shape.
        draw_frames: the data set.
        batch_size: parts of pictures, a quarter as many whole pictures, of one part of a batch.
        kl_weight: of the mean KL divergence per latent number.
        chroma_weight: factor of the chroma's errors, before they are squared.
        absolute_weight: of the mean absolute error.
        seed: of the first weights.
        start: a file of an earlier run to begin with.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        draw_frames: DrawFrames,
        *,
        batch_size: int = 4,
        kl_weight: float = 1e-4,
        chroma_weight: float = CHROMA_WEIGHT,
        absolute_weight: float = 0.1,
        seed: int = 0,
        start: Path | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = AutoencoderKL(config)
        if start is None:
            _start_certain(self.network)
        else:
            self.network.load_state_dict(load_file(start))
        self._start = None if start is None else hashlib.sha256(start.read_bytes()).hexdigest()
        self._draw = draw_frames
        self._batch_size = batch_size
        self._kl_weight = kl_weight
        self._chroma_weight = chroma_weight
        self._absolute_weight = absolute_weight

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """All of the network's."""
        return dict(self.network.named_parameters())

    def applied(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()

    def loss(self, random: StepRandom) -> Tensor:
        """Error of a batch's pictures, and the KL term."""
        pictures = to_pictures(self._draw_pictures(random.choices))
        latents = self.network.encode(pictures)
        errors = self.network.decode(latents.sample(random.tensors)) - pictures
        divergence = 0.5 * (latents.mean.square() + latents.logvar.exp() - 1.0 - latents.logvar).mean()
        return picture_loss(errors, self._absolute_weight, self._chroma_weight) + self._kl_weight * divergence

    def _draw_pictures(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Mostly parts of pictures with half their sides, four in place of a whole one; the network sees both."""
        if rng.random() >= CROPPED_SHARE:
            return self._draw(rng, max(1, self._batch_size // 4))
        frames = self._draw(rng, self._batch_size)
        height, width = frames.shape[1] // 2, frames.shape[2] // 2
        corners = zip(*(rng.integers(size + 1, size=len(frames)) for size in (height, width)), strict=True)
        return np.stack([frame[y : y + height, x : x + width] for frame, (y, x) in zip(frames, corners, strict=True)])

    def sample_sheet(self) -> Image.Image:
        """Pictures of the data set, and below each what comes back."""
        return comparison_sheet(self.network, self._draw)

    @torch.no_grad()
    def export(self, folder: RunFolder) -> list[Path]:
        """Write the network, its latents scaled as Stable Diffusion's are."""
        exported = AutoencoderKL(self.network.config)
        exported.load_state_dict(self.network.state_dict())
        pictures = to_pictures(self._draw(StepRandom.of(1, 0).choices, 256))
        standardise_latents(exported, pictures)
        path = folder.path / FILE_NAME
        state = {key: value.contiguous() for key, value in exported.state_dict().items()}
        folder.write(path, lambda temporary: save_file(state, temporary))
        return [path]

    def describe(self) -> dict[str, Any]:
        """Shape and weights of the loss."""
        return {
            "stage": "autoencoder",
            "config": repr(self.network.config),
            "batch_size": self._batch_size,
            "kl_weight": self._kl_weight,
            "chroma_weight": self._chroma_weight,
            "absolute_weight": self._absolute_weight,
            "start": self._start,
        }


def picture_loss(errors: Tensor, absolute_weight: float, chroma_weight: float = CHROMA_WEIGHT) -> Tensor:
    """Mean squared error, of the chroma times `chroma_weight`, and a part of the mean absolute one; `b 3 h w`."""
    squared = chroma_weighted(errors, chroma_weight).square().mean()
    return squared + absolute_weight * errors.abs().mean()


def comparison_sheet(network: AutoencoderKL, draw_frames: DrawFrames) -> Image.Image:
    """Pictures of a data set, and below each what comes back."""
    pictures = to_pictures(draw_frames(StepRandom.of(0, 0).choices, _SHOWN))
    decoded = to_frames(network.decode(network.encode(pictures).mode()))
    half = _SHOWN // 2
    rows = [row for part in (slice(half), slice(half, None)) for row in (to_frames(pictures)[part], decoded[part])]
    return contact_sheet([frame for row in rows for frame in row], columns=half)


def chroma_weighted(pictures: Tensor, weight: float) -> Tensor:
    """Pictures `b 3 h w` in RGB with what is not luminance (ITU-R BT.601) times `weight`."""
    luminance = (pictures * pictures.new_tensor(_LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
    return luminance + weight * (pictures - luminance)


@torch.no_grad()
def _start_certain(network: AutoencoderKL) -> None:
    """Begin with little noise in the latents; with as much noise as signal, the decoder would never listen to them."""
    bias = network.quant_conv.bias
    assert bias is not None
    bias[len(bias) // 2 :] = _FIRST_LOGVAR


@torch.no_grad()
def standardise_latents(network: AutoencoderKL, pictures: Tensor) -> None:
    """Give each latent channel mean 0 and standard deviation 1 / SCALE_FACTOR over `pictures`; the decoder undoes it.

    Only the two 1x1 convolutions beside the latents change: pictures come back as before, up to rounding.
    """
    latents = torch.cat([network.encode(part).mode() for part in torch.split(pictures, 32)])
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    gain = 1.0 / (SCALE_FACTOR * std)
    channels = len(mean)
    network.quant_conv.weight[:channels] *= gain[:, None, None, None]
    assert network.quant_conv.bias is not None
    assert network.post_quant_conv.bias is not None
    network.quant_conv.bias[:channels] = (network.quant_conv.bias[:channels] - mean) * gain
    network.quant_conv.bias[channels:] += 2.0 * gain.log()  # the other half is the logarithm of the variance
    weight = network.post_quant_conv.weight[:, :, 0, 0]
    network.post_quant_conv.bias += weight @ mean
    network.post_quant_conv.weight /= gain[None, :, None, None]
