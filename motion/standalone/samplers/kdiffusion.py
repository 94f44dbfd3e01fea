"""`modules.sd_samplers_kdiffusion`: the samplers that walk over noise levels σ, and LCM, which does too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch

from motion.errors import SettingsError
from motion.standalone import shared
from motion.standalone.samplers.cfg_denoiser import CFGDenoiser
from motion.standalone.samplers.common import Sampler, SamplerData, setup_img2img_steps, with_extra_noise
from motion.standalone.samplers.denoisers import DiscreteSchedule, EpsDenoiser, LcmDenoiser
from motion.standalone.samplers.sampling_functions import (
    sample_dpmpp_2m,
    sample_euler,
    sample_euler_ancestral,
    sample_lcm,
)
from motion.standalone.samplers.schedulers import Scheduler, schedulers_map

if TYPE_CHECKING:
    from motion.standalone.sd_model import SdModel

OLD_KARRAS_SIGMAS = (0.1, 10.0)


class CFGDenoiserKDiffusion(CFGDenoiser):
    """Guidance over σ."""

    def make_inner_model(self) -> DiscreteSchedule:
        """ε denoiser of the sampler's model."""
        return EpsDenoiser(self.sampler.sd_model, quantize=shared.opts.enable_quantization)


class CFGDenoiserLCM(CFGDenoiser):
    """Guidance of a latent consistency model."""

    def make_inner_model(self) -> DiscreteSchedule:
        """Consistency function of the sampler's model."""
        return LcmDenoiser(self.sampler.sd_model)


class KDiffusionSampler(Sampler):
    """Walks over noise levels. The levels follow `sd_model.alphas_cumprod` as it is when the sampler is made."""

    denoiser_class: type[CFGDenoiser] = CFGDenoiserKDiffusion

    def __init__(
        self, func: Callable[..., torch.Tensor], sd_model: SdModel, extra_params: tuple[str, ...] = ()
    ) -> None:
        super().__init__(func, sd_model, extra_params)
        self.model_wrap_cfg = self.denoiser_class(self)
        self.model_wrap = cast(DiscreteSchedule, self.model_wrap_cfg.inner_model)

    def get_sigmas(self, p: Any, steps: int) -> torch.Tensor:
        """Falling sigmas on the CPU, the last one 0; the choice goes into the infotext.

        Raises:
            SettingsError: unknown scheduler.
        """
        discard = self.config.options.get("discard_next_to_last_sigma", False)
        if shared.opts.always_discard_next_to_last_sigma and not discard:
            discard = True
            p.extra_generation_params["Discard penultimate sigma"] = True
        sigmas = self._scheduled_sigmas(p, steps + 1 if discard else steps).cpu()
        return torch.cat([sigmas[:-2], sigmas[-1:]]) if discard else sigmas

    def _scheduled_sigmas(self, p: Any, steps: int) -> torch.Tensor:
        if p.sampler_noise_scheduler_override is not None:
            sigmas: torch.Tensor = p.sampler_noise_scheduler_override(steps)
            return sigmas
        scheduler = self._scheduler(p)
        if scheduler is None or scheduler.function is None:
            return self.model_wrap.get_sigmas(steps)
        if not p.is_hr_pass:
            p.extra_generation_params["Schedule type"] = scheduler.label
        elif scheduler.label != p.extra_generation_params.get("Schedule type"):
            p.extra_generation_params["Hires schedule type"] = scheduler.label
        return scheduler.function(n=steps, **self._scheduler_arguments(p, scheduler), device=torch.device("cpu"))

    def _scheduler(self, p: Any) -> Scheduler | None:
        name = (p.hr_scheduler if p.is_hr_pass else p.scheduler) or "Automatic"
        if name == "Automatic":
            name = self.config.options.get("scheduler")
            if name is None:
                return None
        if name not in schedulers_map:
            known = ", ".join(sorted({scheduler.label for scheduler in schedulers_map.values()}))
            raise SettingsError(f"Scheduler {name!r} is unknown; this host has {known}. Choose one of these.")
        return schedulers_map[name]

    def _scheduler_arguments(self, p: Any, scheduler: Scheduler) -> dict[str, Any]:
        opts, infotext = shared.opts, p.extra_generation_params
        own = {"sigma_min": self.model_wrap.sigmas[0].item(), "sigma_max": self.model_wrap.sigmas[-1].item()}
        arguments: dict[str, Any] = dict(own)
        if opts.use_old_karras_scheduler_sigmas:
            arguments["sigma_min"], arguments["sigma_max"] = OLD_KARRAS_SIGMAS
        for name, label in (("sigma_min", "Schedule min sigma"), ("sigma_max", "Schedule max sigma")):
            wanted = getattr(opts, name)
            if wanted not in (0, own[name]):
                arguments[name] = infotext[label] = wanted
        if scheduler.default_rho != -1 and opts.rho not in (0, scheduler.default_rho):
            arguments["rho"] = infotext["Schedule rho"] = opts.rho
        if scheduler.need_inner_model:
            arguments["inner_model"] = self.model_wrap
        return arguments

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
        sigmas = self.get_sigmas(p, steps)
        if shared.opts.sgm_noise_multiplier:
            p.extra_generation_params["SGM noise multiplier"] = True
            x = x * (1 + sigmas[0] ** 2) ** 0.5
        else:
            x = x * sigmas[0]
        arguments = self.initialize(p)
        self.last_latent = x
        conds = {"cond": conditioning, "uncond": unconditional_conditioning, "image_cond": image_conditioning}
        return self.run(steps, x, conds, sigmas=sigmas, **arguments)

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
        sigmas = self.get_sigmas(p, steps)[steps - t_enc - 1 :]
        noisy = with_extra_noise(p, x, noise, x + noise * sigmas[0])
        arguments = self.initialize(p)
        self.model_wrap_cfg.init_latent = x
        self.last_latent = x
        conds = {"cond": conditioning, "uncond": unconditional_conditioning, "image_cond": image_conditioning}
        return self.run(t_enc + 1, noisy, conds, sigmas=sigmas, **arguments)


class LCMSampler(KDiffusionSampler):
    """Walks over the noise levels that a latent consistency model knows."""

    denoiser_class = CFGDenoiserLCM


samplers_data_k_diffusion = (
    SamplerData(
        "DPM++ 2M", functools.partial(KDiffusionSampler, sample_dpmpp_2m), ["k_dpmpp_2m"], {"scheduler": "karras"}
    ),
    SamplerData(
        "Euler a",
        functools.partial(KDiffusionSampler, sample_euler_ancestral),
        ["k_euler_a", "k_euler_ancestral"],
        {"uses_ensd": True},
    ),
    SamplerData(
        "Euler",
        functools.partial(KDiffusionSampler, sample_euler, extra_params=("s_churn", "s_tmin", "s_tmax", "s_noise")),
        ["k_euler"],
        {},
    ),
)
samplers_data_lcm = (SamplerData("LCM", functools.partial(LCMSampler, sample_lcm), ["k_lcm"], {}),)
