"""Pictures to latents and back, for jobs; part of `modules.processing`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from motion.standalone import devices
from motion.standalone.samplers.common import decode_first_stage, images_tensor_to_samples


class DecodedSamples(list[torch.Tensor]):
    """Pictures, each 3 H W, about [-1, 1]: the host doesn't decode them again."""

    already_decoded = True


def decode_latent_batch(
    model: Any, batch: torch.Tensor, target_device: torch.device | None = None, check_for_nans: bool = False
) -> DecodedSamples:
    """Latents, b c h w -> pictures; one row at a time, so that memory doesn't grow with the batch.

    Raises:
        NansException: a network's output holds NaN, and `check_for_nans`.
    """
    if check_for_nans:
        devices.test_for_nans(batch, "unet")
    decoded = DecodedSamples()
    for row in batch:
        picture = decode_first_stage(model, row[None])[0]
        if check_for_nans:
            devices.test_for_nans(picture, "vae")
        decoded.append(picture if target_device is None else picture.to(target_device))
    return decoded


def encode_images(pictures: torch.Tensor, model: Any) -> torch.Tensor:
    """Pictures, b 3 H W in [0, 1] -> latents, b c h w.

    The VAE's posterior noise is always that of seed 0: a picture has one latent, whatever was drawn before it and
    wherever it stands in a batch. (A1111 takes what torch's global generator gives.)
    """
    rows = []
    for picture in pictures:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows.append(images_tensor_to_samples(picture[None], None, model))
    return torch.cat(rows)


def images_to_tensor(images: Iterable[Image.Image]) -> torch.Tensor:
    """RGB pictures of one size -> b 3 H W float32 in [0, 1]."""
    arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0 for image in images]
    return torch.from_numpy(np.moveaxis(np.stack(arrays), 3, 1).copy())


def tensor_to_image(picture: torch.Tensor) -> Image.Image:
    """3 H W in [0, 1] -> RGB picture; rounded down, as in A1111."""
    pixels = 255.0 * np.moveaxis(picture.float().cpu().numpy(), 0, 2)
    return Image.fromarray(pixels.astype(np.uint8))


def stack_pictures(decoded: Sequence[torch.Tensor]) -> torch.Tensor:
    """Decoded pictures, each 3 H W in [-1, 1] -> b 3 H W float32 in [0, 1]."""
    return torch.clamp((torch.stack(list(decoded)).float() + 1.0) / 2.0, min=0.0, max=1.0)
