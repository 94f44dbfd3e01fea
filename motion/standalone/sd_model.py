"""The loaded checkpoint, with the attributes that the web UI's `shared.sd_model` has."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from motion.checkpoints.stable_diffusion import StableDiffusionFile
from motion.injection.beta_schedule import alphas_cumprod, betas
from motion.models.autoencoder import AutoencoderKL, DiagonalGaussian
from motion.models.precision import Precision
from motion.models.unet import UNetModel
from motion.protocols import BetaSchedule
from motion.standalone import shared
from motion.standalone.text.conditioner import PromptConditioner, TextConditioner
from motion.standalone.text.prompt_parser import Cond

if TYPE_CHECKING:
    from motion.standalone.sd_models import CheckpointInfo

SD_SCALE_FACTOR = 0.18215
SD_BETA_SCHEDULE = BetaSchedule("scaled_linear")


class DiffusionWrapper(nn.Module):
    """The UNet and how conditions reach it.

    Attributes:
        diffusion_model: the UNet.
        conditioning_key: "crossattn": text only.
    """

    conditioning_key = "crossattn"

    def __init__(self, unet: UNetModel) -> None:
        super().__init__()
        self.diffusion_model = unet

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: list[torch.Tensor] | None = None,
        c_crossattn: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """ε, b c h w. `c_concat` is for inpainting models and left aside; texts are joined along their tokens."""
        context = torch.cat(c_crossattn or [], dim=1)
        prediction: torch.Tensor = self.diffusion_model(x, t, context=context)
        return prediction


class SdModel(nn.Module):
    """UNet, autoencoder and text encoder of one Stable Diffusion 1 checkpoint, and its noise schedule.

    Attributes:
        model: `.diffusion_model` is the UNet.
        first_stage_model: autoencoder.
        cond_stage_model: prompts -> tokens, b n d.
        cond_stage_model_empty_prompt: tokens of the empty prompt, 1 n d.
        wrapper: class of `model`.
        betas: β of every timestep, fp32.
        alphas_cumprod: ᾱ of every timestep, fp32; what samplers read. Replaced while a motion module is in use.
        alphas_cumprod_original: ᾱ of the checkpoint.
        sd_checkpoint_info: the file.
        sd_model_hash: the first ten digits of its SHA-256.
    """

    betas: torch.Tensor
    alphas_cumprod: torch.Tensor
    alphas_cumprod_original: torch.Tensor
    cond_stage_model_empty_prompt: torch.Tensor
    sd_checkpoint_info: CheckpointInfo
    sd_model_checkpoint: str
    sd_model_hash: str | None

    wrapper: type[nn.Module] = DiffusionWrapper
    parameterization = "eps"
    cond_stage_key = "txt"
    first_stage_key = "image"
    num_timesteps = SD_BETA_SCHEDULE.num_timesteps
    scale_factor = SD_SCALE_FACTOR
    latent_channels = 4
    is_sd1 = True
    is_sd2 = False
    is_sdxl = False
    is_ssd = False
    is_sd3 = False
    is_sdxl_inpaint = False
    lowvram = False
    applied_token_merged_ratio = 0.0

    def __init__(self, unet: UNetModel, first_stage_model: AutoencoderKL, cond_stage_model: PromptConditioner) -> None:
        super().__init__()
        self.model: Any = self.wrapper(unet)
        self.first_stage_model = first_stage_model
        self.cond_stage_model = cond_stage_model
        cumulative = alphas_cumprod(SD_BETA_SCHEDULE)
        self.register_buffer("betas", betas(SD_BETA_SCHEDULE).float(), persistent=False)
        self.register_buffer("alphas_cumprod", cumulative, persistent=False)
        self.register_buffer("alphas_cumprod_original", cumulative, persistent=False)

    @classmethod
    def from_checkpoint(cls, checkpoint: StableDiffusionFile, precision: Precision) -> SdModel:
        """The networks of an open checkpoint, on the device and in the formats of `precision`.

        Raises:
            CheckpointError: a tensor is missing, left over or of another shape.
        """
        device, dtype = precision.device, precision.dtype
        unet = checkpoint.load_unet(device=device, dtype=dtype)
        autoencoder = checkpoint.load_autoencoder(device=device, dtype=precision.dtype_vae)
        return cls(unet, autoencoder, cls.load_conditioner(checkpoint, precision)).to(device)

    @classmethod
    def load_conditioner(cls, checkpoint: StableDiffusionFile, precision: Precision) -> PromptConditioner:
        """What encodes prompts, with the text encoder of a checkpoint."""
        text_encoder = checkpoint.load_text_encoder(device=precision.device, dtype=precision.dtype)
        return TextConditioner(text_encoder, checkpoint.load_tokenizer())

    @property
    def device(self) -> torch.device:
        """Where the schedule, and with it the model, lives."""
        return self.betas.device

    @property
    def dtype(self) -> torch.dtype:
        """Format of the UNet's weights."""
        dtype: torch.dtype = self.model.diffusion_model.dtype
        return dtype

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        """ε prediction of the UNet.

        Args:
            x: noisy latents scaled to unit variance, b c h w.
            t: timestep of each row; may be fractional.
            cond: tokens, b n d; a list of such; or {"c_crossattn": [tokens], "c_concat": [picture]}.

        Returns:
            b c h w, in x's format.
        """
        if not isinstance(cond, dict):
            cond = {"c_crossattn": cond if isinstance(cond, list) else [cond]}
        prediction: torch.Tensor = self.model(x, t, **cond)
        return prediction

    def get_learned_conditioning(self, prompts: list[str]) -> Cond:
        """Tokens of prompts, b n d, encoded as the options ask for."""
        self.follow_text_options()
        tokens: torch.Tensor = self.cond_stage_model(prompts)
        return tokens

    def follow_text_options(self) -> None:
        """Make the conditioner encode as the host's options ask for."""
        encoder, opts = self.cond_stage_model, shared.opts
        encoder.clip_skip = opts.CLIP_stop_at_last_layers
        encoder.emphasis = opts.emphasis
        encoder.comma_backtrack = opts.comma_padding_backtrack

    def encode_first_stage(self, x: torch.Tensor) -> DiagonalGaussian | torch.Tensor:
        """Pictures, b 3 H W in [-1, 1] -> distribution of their latents."""
        return self.first_stage_model.encode(x.to(self.first_stage_model.dtype))

    def get_first_stage_encoding(self, encoder_posterior: DiagonalGaussian | torch.Tensor) -> torch.Tensor:
        """Scaled latents, b c h w; a distribution is sampled with noise of torch's global CPU generator."""
        if isinstance(encoder_posterior, torch.Tensor):
            return self.scale_factor * encoder_posterior
        return self.scale_factor * encoder_posterior.sample()

    def decode_first_stage(self, z: torch.Tensor) -> torch.Tensor:
        """Scaled latents, b c h w -> pictures, b 3 H W, about [-1, 1]."""
        return self.first_stage_model.decode((z / self.scale_factor).to(self.first_stage_model.dtype))

    def ema_scope(self, context: str | None = None) -> AbstractContextManager[None]:
        """Averaged weights, where a checkpoint under training has them; here the weights are what they are."""
        return contextlib.nullcontext()
