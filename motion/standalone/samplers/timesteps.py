"""`modules.sd_samplers_timesteps`: DDIM, which walks over whole timesteps of the model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from motion.errors import SettingsError
from motion.standalone import devices, shared
from motion.standalone.samplers.cfg_denoiser import CFGDenoiser
from motion.standalone.samplers.common import Sampler, SamplerData, setup_img2img_steps, with_extra_noise
from motion.standalone.samplers.denoisers import TimestepDenoiser, over_latents
from motion.standalone.samplers.sampling_functions import sample_ddim

if TYPE_CHECKING:
    from motion.standalone.sd_model import SdModel


class CFGDenoiserTimesteps(CFGDenoiser):
    """Guidance of ε predictions; an inpainted picture's original is blended into the model's input."""

    mask_before_denoising = True

    def __init__(self, sampler: Sampler) -> None:
        super().__init__(sampler)
        self.alphas = sampler.sd_model.alphas_cumprod

    def make_inner_model(self) -> TimestepDenoiser:
        """ε prediction of the sampler's model."""
        return TimestepDenoiser(self.sampler.sd_model)

    def get_pred_x0(self, x_in: torch.Tensor, x_out: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Picture that an ε prediction at timesteps `sigma` stands for (arXiv:2010.02502, equation 9)."""
        alpha = over_latents(self.alphas[sigma.long()])
        return (x_in - (1 - alpha).sqrt() * x_out) / alpha.sqrt()


class CompVisSampler(Sampler):
    """Walks over timesteps; ᾱ is read from the model when sampling starts."""

    eta_option_field = "eta_ddim"
    eta_infotext_field = "Eta DDIM"
    eta_default = 0.0

    def __init__(self, func: Callable[..., torch.Tensor], sd_model: SdModel) -> None:
        super().__init__(func, sd_model)
        self.model_wrap_cfg = CFGDenoiserTimesteps(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_timesteps(self, p: Any, steps: int) -> torch.Tensor:
        """Rising timesteps 1, 1 + 1000 // steps, …, int64.

        Raises:
            SettingsError: more steps than the model has timesteps.
        """
        discard = self.config.options.get("discard_next_to_last_sigma", False)
        if shared.opts.always_discard_next_to_last_sigma and not discard:
            discard = True
            p.extra_generation_params["Discard penultimate sigma"] = True
        steps += 1 if discard else 0
        total = len(self.sd_model.alphas_cumprod)
        if not 1 <= steps <= total:
            raise SettingsError(
                f"{self.config.name} takes 1 to {total} steps, got {steps}. Change the steps or the denoising strength."
            )
        return torch.arange(0, total, total // steps, device=devices.device).add(1).clamp(max=total - 1)

    def sample(
        self,
        p: Any,
        x: torch.Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Unit noise, b c h w -> latents."""
        steps = steps or p.steps
        timesteps = self.get_timesteps(p, steps)
        arguments = self.initialize(p)
        self.last_latent = x
        conds = {"cond": conditioning, "uncond": unconditional_conditioning, "image_cond": image_conditioning}
        alphas_cumprod = self.sd_model.alphas_cumprod
        return self.run(steps, x, conds, timesteps=timesteps, alphas_cumprod=alphas_cumprod, **arguments)

    def sample_img2img(
        self,
        p: Any,
        x: torch.Tensor,
        noise: torch.Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Latents and unit noise, b c h w each -> latents."""
        steps, t_enc = setup_img2img_steps(p, steps)
        timesteps = self.get_timesteps(p, steps)
        alphas_cumprod = self.sd_model.alphas_cumprod
        alpha = alphas_cumprod[timesteps[t_enc]]
        noisy = with_extra_noise(p, x, noise, x * alpha.sqrt() + noise * (1 - alpha).sqrt(), alpha.sqrt())
        arguments = self.initialize(p)
        self.model_wrap_cfg.init_latent = x
        self.last_latent = x
        conds = {"cond": conditioning, "uncond": unconditional_conditioning, "image_cond": image_conditioning}
        return self.run(
            t_enc + 1, noisy, conds, timesteps=timesteps[:t_enc], alphas_cumprod=alphas_cumprod, **arguments
        )


samplers_data_timesteps = (SamplerData("DDIM", functools.partial(CompVisSampler, sample_ddim), ["ddim"], {}),)
