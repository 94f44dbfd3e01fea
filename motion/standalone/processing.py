"""Jobs: `modules.processing`."""

from __future__ import annotations

from typing import Any

import torch

from motion.standalone import rng
from motion.standalone.finished_images import apply_overlay
from motion.standalone.latents import DecodedSamples, decode_latent_batch
from motion.standalone.process_images import process_images, process_images_inner
from motion.standalone.processed import Processed, create_infotext, program_version
from motion.standalone.processing_base import (
    StableDiffusionProcessing,
    fix_seed,
    get_fixed_seed,
    opt_C,
    opt_f,
)
from motion.standalone.processing_img2img import StableDiffusionProcessingImg2Img, create_binary_mask
from motion.standalone.processing_txt2img import StableDiffusionProcessingTxt2Img
from motion.standalone.rng import slerp
from motion.standalone.samplers.common import decode_first_stage, images_tensor_to_samples

__all__ = [
    "DecodedSamples",
    "Processed",
    "StableDiffusionProcessing",
    "StableDiffusionProcessingImg2Img",
    "StableDiffusionProcessingTxt2Img",
    "apply_overlay",
    "create_binary_mask",
    "create_infotext",
    "decode_first_stage",
    "decode_latent_batch",
    "fix_seed",
    "get_fixed_seed",
    "images_tensor_to_samples",
    "opt_C",
    "opt_f",
    "process_images",
    "process_images_inner",
    "program_version",
    "slerp",
]


def create_random_tensors(
    shape: Any,
    seeds: list[int],
    subseeds: list[int] | None = None,
    subseed_strength: float = 0.0,
    seed_resize_from_h: int = 0,
    seed_resize_from_w: int = 0,
    p: Any = None,
) -> torch.Tensor:
    """Starting noise of images, b c h w; `shape` is c h w."""
    return rng.ImageRNG(
        shape,
        seeds,
        subseeds=subseeds,
        subseed_strength=subseed_strength,
        seed_resize_from_h=seed_resize_from_h,
        seed_resize_from_w=seed_resize_from_w,
    ).next()
