"""`modules.sd_samplers_common`: what all samplers share, and pictures ↔ latents."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from motion.errors import SettingsError
from motion.standalone import devices, script_callbacks, shared

if TYPE_CHECKING:
    from motion.standalone.samplers.cfg_denoiser import CFGDenoiser
    from motion.standalone.sd_model import SdModel


class SamplerData(NamedTuple):
    """One entry of the sampler list.

    Attributes:
        name: name shown to users.
        constructor: makes the sampler for a model.
        aliases: further names that the API takes.
        options: "scheduler": the one that Automatic stands for; "uses_ensd": draws noise while sampling.
    """

    name: str
    constructor: Callable[[SdModel], Sampler]
    aliases: list[str]
    options: dict[str, Any]

    def total_steps(self, steps: int) -> int:
        """Model calls in `steps` steps."""
        return steps * 2 if self.options.get("second_order", False) else steps


class InterruptedException(BaseException):
    """The user asked to stop. Not an Exception, so that an extension's `except Exception` does not swallow it."""


def setup_img2img_steps(p: Any, steps: int | None = None) -> tuple[int, int]:
    """(steps of the whole schedule, steps after the first that img2img takes at its end)."""
    if shared.opts.img2img_fix_steps or steps is not None:
        wanted = steps or p.steps
        total = int(wanted / min(p.denoising_strength, 0.999)) if p.denoising_strength > 0 else 0
        return total, wanted - 1
    return p.steps, int(min(p.denoising_strength, 0.999) * p.steps)


def store_latent(decoded: torch.Tensor) -> None:
    """Keep the picture in the making, b c h w, for the preview that the progress request draws."""
    shared.state.current_latent = decoded


def decode_first_stage(model: SdModel, x: torch.Tensor) -> torch.Tensor:
    """Latents, b c h w -> pictures, b 3 H W in [-1, 1]."""
    with torch.no_grad(), devices.without_autocast():
        return model.decode_first_stage(x.to(devices.dtype_vae))


def images_tensor_to_samples(
    image: torch.Tensor, approximation: int | None = None, model: SdModel | None = None
) -> torch.Tensor:
    """Pictures, b 3 H W in [0, 1] -> latents, b c h w; each picture is encoded on its own."""
    if approximation:
        raise SettingsError(f"This host encodes with the VAE only, got approximation {approximation}. Pass None.")
    sd_model = model or shared.sd_model
    pictures = image.to(devices.device, devices.dtype_vae) * 2 - 1
    with devices.without_autocast():
        latents = [
            sd_model.get_first_stage_encoding(sd_model.encode_first_stage(picture[None])) for picture in pictures
        ]
    return torch.cat(latents)


def single_sample_to_image(sample: torch.Tensor, approximation: int | None = None) -> Image.Image:
    """Latent, c h w -> picture, by the VAE."""
    picture = decode_first_stage(shared.sd_model, sample[None])[0]
    pixels = ((picture.float() * 0.5 + 0.5).clamp(0, 1) * 255).cpu().numpy()
    return Image.fromarray(np.moveaxis(pixels, 0, 2).astype(np.uint8))


def sample_to_image(samples: torch.Tensor, index: int = 0, approximation: int | None = None) -> Image.Image:
    """Picture of one of b c h w latents, by the VAE."""
    return single_sample_to_image(samples[index], approximation)


def with_extra_noise(
    p: Any, x: torch.Tensor, noise: torch.Tensor, noisy: torch.Tensor, scale: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """Noisy latents of img2img with the extra noise that the option asks for, in units of `scale`; b c h w each."""
    extra = shared.opts.img2img_extra_noise
    if extra <= 0:
        return noisy
    p.extra_generation_params["Extra noise"] = extra
    params = script_callbacks.ExtraNoiseParams(noise, x, noisy)
    script_callbacks.extra_noise_callback(params)
    added: torch.Tensor = params.noise * extra * scale
    return noisy + added


class Sampler:
    """A sampler bound to one model. Made anew for every request, by `create_sampler`.

    Attributes:
        config: its entry in the sampler list.
        model_wrap_cfg: the guided denoiser.
        sampler_extra_args: keyword arguments of every call of it.
        last_latent: newest denoised latents; the result when the user interrupts.
        extra_params: names of the request's fields that the sampling function takes.
    """

    eta_option_field = "eta_ancestral"
    eta_infotext_field = "Eta"
    eta_default = 1.0
    # Infotext key and default of each parameter of stochastic sampling (Karras et al. 2022, algorithm 2).
    churn_params = {  # noqa: RUF012 - never changed
        "s_churn": ("Sigma churn", 0.0),
        "s_tmin": ("Sigma tmin", 0.0),
        "s_tmax": ("Sigma tmax", float("inf")),
        "s_noise": ("Sigma noise", 1.0),
    }

    config: SamplerData
    model_wrap_cfg: CFGDenoiser

    def __init__(
        self, func: Callable[..., torch.Tensor], sd_model: SdModel, extra_params: tuple[str, ...] = ()
    ) -> None:
        self.func = func
        self.funcname = func.__name__
        self.sd_model = sd_model
        self.extra_params = list(extra_params)
        self.conditioning_key = sd_model.model.conditioning_key
        self.p: Any = None
        self.eta: float | None = None
        self.s_min_uncond = 0.0
        self.stop_at: int | None = None
        self.last_latent: torch.Tensor | None = None
        self.sampler_extra_args: dict[str, Any] = {}

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
        raise NotImplementedError

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
        raise NotImplementedError

    def initialize(self, p: Any) -> dict[str, Any]:
        """Bind to the request; returns the keyword arguments that the sampling function takes from it.

        Raises:
            SettingsError: the request switches the checkpoint while sampling.
        """
        if getattr(p, "refiner_checkpoint_info", None) is not None:
            raise SettingsError(
                "This host can't switch checkpoints while sampling. Leave the refiner checkpoint empty."
            )
        self.p = p
        denoiser = self.model_wrap_cfg
        denoiser.p = p
        denoiser.mask = getattr(p, "mask", None)
        denoiser.nmask = getattr(p, "nmask", None)
        denoiser.image_cfg_scale = getattr(p, "image_cfg_scale", None)
        denoiser.step = 0
        self.eta = p.eta if p.eta is not None else getattr(shared.opts, self.eta_option_field)
        self.s_min_uncond = getattr(p, "s_min_uncond", None) or 0.0
        return self._function_arguments(p)

    def _function_arguments(self, p: Any) -> dict[str, Any]:
        accepted = inspect.signature(self.func).parameters
        arguments: dict[str, Any] = {
            name: self._churn_argument(p, name) for name in self.extra_params if name in accepted
        }
        if "eta" in accepted:
            arguments["eta"] = self.eta
            if self.eta != self.eta_default:
                p.extra_generation_params[self.eta_infotext_field] = self.eta
        if "noise" in accepted:
            arguments["noise"] = p.rng.next
        return arguments

    def _churn_argument(self, p: Any, name: str) -> float:
        label, default = self.churn_params[name]
        value = float(getattr(shared.opts, name)) or (default if name == "s_tmax" else 0.0)
        if value == default:
            wanted = getattr(p, name, None)
            return default if wanted is None else float(wanted)
        setattr(p, name, value)
        p.extra_generation_params[label] = value
        return value

    def launch_sampling(self, steps: int, func: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """Run `func`; what was denoised last when the user interrupts it."""
        self.model_wrap_cfg.steps = steps
        self.model_wrap_cfg.total_steps = self.config.total_steps(steps)
        shared.state.sampling_steps = steps
        shared.state.sampling_step = 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def run(self, steps: int, x: torch.Tensor, conds: dict[str, Any], **arguments: Any) -> torch.Tensor:
        """Call the sampling function on noisy `x`, b c h w.

        Args:
            steps: steps that the progress bar counts to.
            x: where to start.
            conds: `cond`, `uncond` and `image_cond` of the guided denoiser.
            **arguments: of the sampling function.
        """
        self.sampler_extra_args = {**conds, "cond_scale": self.p.cfg_scale, "s_min_uncond": self.s_min_uncond}

        def call() -> torch.Tensor:
            return self.func(
                self.model_wrap_cfg, x, extra_args=self.sampler_extra_args, callback=self.callback_state, **arguments
            )

        samples = self.launch_sampling(steps, call)
        self.add_infotext(self.p)
        assert samples is not None, "last_latent is set before sampling starts"
        return samples

    def callback_state(self, d: dict[str, Any]) -> None:
        """Called by the sampling function in every step, with its index as `d["i"]`."""
        if self.stop_at is not None and d["i"] > self.stop_at:
            raise InterruptedException
        shared.state.sampling_step = d["i"]
        shared.total_tqdm.update()

    def add_infotext(self, p: Any) -> None:
        """Say in the infotext which padding of the prompts was needed."""
        if self.model_wrap_cfg.padded_cond_uncond:
            p.extra_generation_params["Pad conds"] = True
        if self.model_wrap_cfg.padded_cond_uncond_v0:
            p.extra_generation_params["Pad conds v0"] = True
