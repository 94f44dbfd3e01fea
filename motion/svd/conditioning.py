"""What Stable Video Diffusion is told of the picture and the clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from motion.models.unet_blocks import timestep_embedding

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training pictures, per channel."""
_LEAST_BLUR = 0.001


@dataclass(frozen=True)
class ClipConditions:
    """Conditions of one clip.

    Attributes:
        embedding: the picture for the cross-attentions, `1 1 k`.
        latents: the picture beside the noisy latents, `1 c h w`: mode of the encoder's answer, not scaled.
        vector: frame rate, motion and noise, `1 v`.
    """

    embedding: Tensor
    latents: Tensor
    vector: Tensor

    def unconditional(self) -> ClipConditions:
        """What guidance leads away from: no picture, the same numbers."""
        return ClipConditions(torch.zeros_like(self.embedding), torch.zeros_like(self.latents), self.vector)


def clip_pixels(pictures: Tensor, size: int = 224) -> Tensor:
    """Pictures as CLIP's image encoder takes them: the whole of each, squashed to a square.

    As kornia 0.6.9's `resize(…, "bicubic", align_corners=True, antialias=True)`, which the weights were trained with.

    Args:
        pictures: `b 3 H W` in [-1, 1], sides of at least 2 pixels.
        size: sides of the squares.

    Returns:
        `b 3 size size`, normalised, float32.
    """
    blurred = _blur(_blur(pictures.float(), size, dim=-2), size, dim=-1)
    squashed = F.interpolate(blurred, (size, size), mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(values, device=squashed.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return ((squashed + 1) / 2 - mean) / std


def _blur(pictures: Tensor, size: int, dim: int) -> Tensor:
    """Gaussian along one axis, as wide as an axis that shrinks to `size` needs it."""
    deviation = max((pictures.shape[dim] / size - 1) / 2, _LEAST_BLUR)
    reach = int(max(4 * deviation, 3)) // 2
    # An axis shorter than the kernel can't be mirrored that far: only tiny pictures get there, and they don't shrink.
    reach = min(reach, pictures.shape[dim] - 1)
    offsets = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    across = dim == -1
    padded = F.pad(pictures, (reach, reach, 0, 0) if across else (0, 0, reach, reach), mode="reflect")
    weight = kernel.reshape(1, 1, 1, -1) if across else kernel.reshape(1, 1, -1, 1)
    channels = pictures.shape[1]
    return F.conv2d(padded, weight.expand(channels, 1, -1, -1), groups=channels)


def embed_vector(fps_id: float, motion_bucket_id: float, noise_aug_strength: float, channels: int = 256) -> Tensor:
    """The numbers that describe a clip, each embedded as a timestep is, side by side.

    Args:
        fps_id: frames a second less one.
        motion_bucket_id: how much moves.
        noise_aug_strength: deviation of the noise on the picture.
        channels: channels per number.

    Returns:
        `1 (3 channels)`, float32.
    """
    numbers = torch.tensor([fps_id, motion_bucket_id, noise_aug_strength])
    return timestep_embedding(numbers, channels).reshape(1, -1)  # n c -> 1 (n c)
