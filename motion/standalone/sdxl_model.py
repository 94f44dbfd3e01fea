"""The loaded SDXL checkpoint, with the attributes that the web UI's `shared.sd_model` has for one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from motion.checkpoints.stable_diffusion import StableDiffusionFile
from motion.models.precision import Precision
from motion.models.unet import UNetModel
from motion.standalone import shared
from motion.standalone.sd_model import SdModel
from motion.standalone.text.prompt_parser import DictWithShape
from motion.standalone.text.sdxl_conditioner import PictureSizes, SdxlConditioner

SDXL_SCALE_FACTOR = 0.13025
SDXL_SIZE = 1024
"""Pixels that a request without a size stands for."""


class SdxlDiffusionWrapper(nn.Module):
    """The UNet and how conditions reach it.

    Attributes:
        diffusion_model: the UNet.
        conditioning_key: "crossattn", as the web UI has it for SDXL too.
    """

    conditioning_key = "crossattn"

    def __init__(self, unet: UNetModel) -> None:
        super().__init__()
        self.diffusion_model = unet

    def forward(self, x: torch.Tensor, t: torch.Tensor, c: dict[str, Any]) -> torch.Tensor:
        """ε, b c h w, of tokens `c["crossattn"]` and vectors `c["vector"]`; what else `c` holds is left aside."""
        prediction: torch.Tensor = self.diffusion_model(x, t, context=c["crossattn"], y=c["vector"])
        return prediction


class SdxlModel(SdModel):
    """UNet, autoencoder and both text encoders of one SDXL checkpoint, and its noise schedule."""

    scale_factor = SDXL_SCALE_FACTOR
    is_sd1 = False
    is_sdxl = True
    wrapper = SdxlDiffusionWrapper
    cond_stage_model: SdxlConditioner

    @classmethod
    def load_conditioner(cls, checkpoint: StableDiffusionFile, precision: Precision) -> SdxlConditioner:
        """Both text encoders of a checkpoint."""
        device, dtype = precision.device, precision.dtype
        clip = checkpoint.load_text_encoder(device=device, dtype=dtype)
        open_clip = checkpoint.load_second_text_encoder(device=device, dtype=dtype)
        return SdxlConditioner(clip, open_clip, checkpoint.load_tokenizer())

    @property
    def conditioner(self) -> SdxlConditioner:
        """`cond_stage_model`, under the name by which extensions tell SDXL."""
        return self.cond_stage_model

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, cond: dict[str, Any]) -> torch.Tensor:
        """ε prediction of the UNet.

        Args:
            x: noisy latents scaled to unit variance, b c h w.
            t: timestep of each row; may be fractional.
            cond: "crossattn", b n d; "vector", b v.

        Returns:
            b c h w, in x's format.
        """
        prediction: torch.Tensor = self.model(x, t, cond)
        return prediction

    def get_learned_conditioning(self, prompts: list[str]) -> DictWithShape:
        """Conditions of prompts, encoded as the options ask for.

        Negative prompts that are all empty stand for no text at all, as in the web UI; an empty prompt does not.

        Args:
            prompts: texts; an `SdConditioning` says of which size the pictures are, and whether these are negative.
        """
        opts = shared.opts
        self.follow_text_options()
        self.cond_stage_model.skip_in_clip = opts.sdxl_clip_l_skip
        sizes = PictureSizes(
            getattr(prompts, "height", None) or SDXL_SIZE,
            getattr(prompts, "width", None) or SDXL_SIZE,
            opts.sdxl_crop_top,
            opts.sdxl_crop_left,
        )
        without_text = getattr(prompts, "is_negative_prompt", False) and not any(prompts)
        conditions: DictWithShape = self.cond_stage_model(prompts, sizes, without_text=without_text)
        return conditions

    def encode_first_stage(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures, b 3 H W in [-1, 1] -> scaled latents, sampled with noise of torch's global CPU generator."""
        posterior = self.first_stage_model.encode(x.to(self.first_stage_model.dtype))
        return self.scale_factor * posterior.sample()

    def get_first_stage_encoding(self, encoder_posterior: Any) -> torch.Tensor:
        """The latents as they are: the web UI's SDXL has scaled them in `encode_first_stage`."""
        latents: torch.Tensor = encoder_posterior
        return latents
