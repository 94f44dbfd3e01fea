"""The txt2img job and its hires pass; part of `modules.processing`."""

# ruff: noqa: RUF009 - the calls make dataclass fields and descriptors
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from motion.errors import SettingsError
from motion.standalone import devices, extra_networks, rng, samplers, sd_models, shared
from motion.standalone.hires import cut_middle, hires_size, upscale_first_pass
from motion.standalone.latents import decode_latent_batch, encode_images, images_to_tensor
from motion.standalone.processing_base import (
    StableDiffusionProcessing,
    as_list,
    opt_f,
    total_steps,
)
from motion.standalone.processing_fields import cond_cache, filled_later
from motion.standalone.text import prompt_parser

if TYPE_CHECKING:
    from motion.standalone.extra_networks import ExtraNetworkData


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    """A job from text, with a second pass at a larger size if `enable_hr`."""

    enable_hr: bool = False
    denoising_strength: float | None = 0.75
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: Any = ""
    hr_negative_prompt: Any = ""
    force_task_id: str | None = None

    hr_checkpoint_info: Any = filled_later()
    hr_upscale_to_x: int = field(default=0, init=False)
    hr_upscale_to_y: int = field(default=0, init=False)
    truncate_x: int = field(default=0, init=False)
    truncate_y: int = field(default=0, init=False)
    latent_scale_mode: dict[str, Any] | None = filled_later()
    hr_c: Any = filled_later()
    hr_uc: Any = filled_later()
    all_hr_prompts: list[str] = filled_later()
    all_hr_negative_prompts: list[str] = filled_later()
    hr_prompts: list[str] = filled_later()
    hr_negative_prompts: list[str] = filled_later()
    hr_extra_network_data: ExtraNetworkData | None = filled_later()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.firstphase_width != 0 or self.firstphase_height != 0:
            self.hr_upscale_to_x, self.hr_upscale_to_y = self.width, self.height
            self.width, self.height = self.firstphase_width, self.firstphase_height
        self.cached_hr_uc = cond_cache("hr_uc")
        self.cached_hr_c = cond_cache("hr_c")

    # Before sampling

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Work out the hires pass.

        Raises:
            SettingsError: its checkpoint or its upscaler isn't there.
        """
        if not self.enable_hr:
            return
        params = self.extra_generation_params
        params["Denoising strength"] = self.denoising_strength
        if self.hr_checkpoint_name and self.hr_checkpoint_name != "Use same checkpoint":
            self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(self.hr_checkpoint_name)
            if self.hr_checkpoint_info is None:
                raise SettingsError(f"No checkpoint is named {self.hr_checkpoint_name!r}. Choose one of the list.")
            params["Hires checkpoint"] = self.hr_checkpoint_info.short_title
        if self.hr_sampler_name is not None and self.hr_sampler_name != self.sampler_name:
            params["Hires sampler"] = self.hr_sampler_name
        params["Hires prompt"] = _hires_prompt
        params["Hires negative prompt"] = _hires_negative_prompt
        params["Hires schedule type"] = None  # its place in the order; the sampler fills it
        if self.hr_scheduler is None:
            self.hr_scheduler = self.scheduler
        self.latent_scale_mode = shared.latent_upscale_modes.get(self.hr_upscaler or shared.latent_upscale_default_mode)
        if self.latent_scale_mode is None and all(entry.name != self.hr_upscaler for entry in shared.sd_upscalers):
            known = ", ".join([*shared.latent_upscale_modes, *(entry.name for entry in shared.sd_upscalers)])
            raise SettingsError(f"No upscaler is named {self.hr_upscaler!r}; there are {known}. Choose one of these.")
        self.calculate_target_resolution()
        self._count_passes()
        if self.hr_second_pass_steps:
            params["Hires steps"] = self.hr_second_pass_steps
        if self.hr_upscaler is not None:
            params["Hires upscaler"] = self.hr_upscaler

    def calculate_target_resolution(self) -> None:
        """Fill hr_upscale_to_x/y (pixels) and truncate_x/y (latent pixels to cut) from hr_scale or hr_resize_x/y."""
        if self.hr_resize_x == 0 and self.hr_resize_y == 0:
            self.extra_generation_params["Hires upscale"] = self.hr_scale
        else:
            self.extra_generation_params["Hires resize"] = f"{self.hr_resize_x}x{self.hr_resize_y}"
        size = hires_size((self.width, self.height), self.hr_scale, (self.hr_resize_x, self.hr_resize_y))
        self.hr_upscale_to_x, self.hr_upscale_to_y = size
        if self.hr_resize_x and self.hr_resize_y:
            self.truncate_x = (size[0] - self.hr_resize_x) // opt_f
            self.truncate_y = (size[1] - self.hr_resize_y) // opt_f

    def _count_passes(self) -> None:
        state = shared.state
        if state.processing_has_refined_job_count:
            return
        if state.job_count == -1:
            state.job_count = self.n_iter
        shared.total_tqdm.updateTotal((self.steps + (self.hr_second_pass_steps or self.steps)) * state.job_count)
        state.job_count *= 2
        state.processing_has_refined_job_count = True

    def setup_prompts(self) -> None:
        """Also fill the prompts of the hires pass; empty ones are those of the first."""
        super().setup_prompts()
        if not self.enable_hr:
            return
        if self.hr_prompt == "":
            self.hr_prompt = self.prompt
        if self.hr_negative_prompt == "":
            self.hr_negative_prompt = self.negative_prompt
        count = self.batch_size * self.n_iter
        self.all_hr_prompts, self.all_hr_negative_prompts = self._styled(
            as_list(self.hr_prompt, count), as_list(self.hr_negative_prompt, count)
        )

    def parse_extra_network_prompts(self) -> None:
        """Also take the tags out of the hires prompts."""
        super().parse_extra_network_prompts()
        if self.enable_hr:
            batch = slice(self.iteration * self.batch_size, (self.iteration + 1) * self.batch_size)
            self.hr_negative_prompts = self.all_hr_negative_prompts[batch]
            self.hr_prompts, self.hr_extra_network_data = extra_networks.parse_prompts(self.all_hr_prompts[batch])

    def setup_conds(self) -> None:
        """Encode the prompts of this pass; those of the hires pass wait for their networks."""
        self.hr_uc = self.hr_c = None
        if self.is_hr_pass:
            self.calculate_hr_conds()
            return
        super().setup_conds()
        if self.enable_hr and self.hr_checkpoint_info is None and shared.opts.hires_fix_use_firstpass_conds:
            self.calculate_hr_conds()

    def calculate_hr_conds(self) -> None:
        """Encode the prompts of the hires pass unless that is done."""
        if self.hr_c is not None:
            return
        width, height = self.hr_upscale_to_x, self.hr_upscale_to_y
        prompts = prompt_parser.SdConditioning(self.hr_prompts, width=width, height=height)
        negative = prompt_parser.SdConditioning(
            self.hr_negative_prompts, is_negative_prompt=True, width=width, height=height
        )
        steps = total_steps(self.hr_sampler_name or self.sampler_name, self.hr_second_pass_steps or self.steps)
        first, data = self.firstpass_steps, self.hr_extra_network_data
        self.hr_uc = self.get_conds_with_caching(
            prompt_parser.get_learned_conditioning, negative, first, [self.cached_hr_uc, self.cached_uc], data, steps
        )
        self.hr_c = self.get_conds_with_caching(
            prompt_parser.get_multicond_learned_conditioning,
            prompts,
            first,
            [self.cached_hr_c, self.cached_c],
            data,
            steps,
        )

    def get_conds(self) -> tuple[Any, Any]:
        """(c, uc) of this pass."""
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else super().get_conds()

    # Sampling

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """One batch, hires pass included; that one returns decoded pictures."""
        self.sampler = samplers.create_sampler(self.sampler_name, self.sd_model)
        if self.firstpass_image is not None and self.enable_hr:
            samples, decoded = self._given_first_pass(self.firstpass_image)
        else:
            samples = self._sample_first_pass(conditioning, unconditional_conditioning)
            if not self.enable_hr:
                return samples
            decoded = (
                None if self.latent_scale_mode else torch.stack(decode_latent_batch(self.sd_model, samples)).float()
            )
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return self.sample_hr_pass(samples, decoded, seeds, subseeds, subseed_strength, prompts)

    def _sample_first_pass(self, conditioning: Any, unconditional_conditioning: Any) -> torch.Tensor:
        x = self.rng.next()
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(
                p=self, x=x, noise=x, c=conditioning, uc=unconditional_conditioning
            )
        assert self.sampler is not None, "made at the beginning of sample()"
        samples = self.sampler.sample(
            self, x, conditioning, unconditional_conditioning, image_conditioning=self.txt2img_image_conditioning(x)
        )
        devices.torch_gc()
        return samples

    def _given_first_pass(self, image: Image.Image) -> tuple[Any, torch.Tensor | None]:
        pictures = images_to_tensor([image])
        if self.latent_scale_mode is None:
            return None, pictures * 2 - 1
        return encode_images(pictures, self.sd_model), None

    def sample_hr_pass(
        self,
        samples: Any,
        decoded_samples: torch.Tensor | None,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """The hires pass: upscale, add noise, sample again, decode.

        Args:
            samples: latents of the first pass, b c h w.
            decoded_samples: its pictures, b 3 H W in [-1, 1], where upscaling works on pictures.
            seeds: of the batch.
            subseeds: of the batch.
            subseed_strength: of the job.
            prompts: of the batch.

        Returns:
            Decoded pictures; after an interrupt, the first pass as it is.
        """
        if shared.state.interrupted:
            return samples
        self.is_hr_pass = True
        self.sampler = samplers.create_sampler(self.hr_sampler_name or self.sampler_name, self.sd_model)
        upscaled = upscale_first_pass(self, samples, decoded_samples, seeds, prompts)
        shared.state.nextjob()
        upscaled = cut_middle(upscaled, self.truncate_x, self.truncate_y)
        self.rng = rng.ImageRNG(
            upscaled.shape[1:],
            self.seeds,
            subseeds=self.subseeds,
            subseed_strength=self.subseed_strength,
            seed_resize_from_h=self.seed_resize_from_h,
            seed_resize_from_w=self.seed_resize_from_w,
        )
        noise = self.rng.next()
        devices.torch_gc()
        if not self.disable_extra_networks:
            extra_networks.activate(self, self.hr_extra_network_data or {})
        self.calculate_hr_conds()
        if self.scripts is not None:
            self.scripts.before_hr(self)
            self.scripts.process_before_every_sampling(p=self, x=upscaled, noise=noise, c=self.hr_c, uc=self.hr_uc)
        result = self.sampler.sample_img2img(
            self,
            upscaled,
            noise,
            self.hr_c,
            self.hr_uc,
            steps=self.hr_second_pass_steps or self.steps,
            image_conditioning=self.txt2img_image_conditioning(upscaled),
        )
        self.sampler = None
        devices.torch_gc()
        decoded = decode_latent_batch(self.sd_model, result, target_device=devices.cpu, check_for_nans=True)
        self.is_hr_pass = False
        return decoded

    def close(self) -> None:
        """The job is over."""
        super().close()
        self.hr_c = self.hr_uc = None


def _hires_prompt(p: StableDiffusionProcessingTxt2Img, index: int, prompt_text: str, **_: Any) -> str | None:
    text = p.all_hr_prompts[index]
    return text if text != prompt_text else None


def _hires_negative_prompt(
    p: StableDiffusionProcessingTxt2Img, index: int, negative_prompt: str, **_: Any
) -> str | None:
    text = p.all_hr_negative_prompts[index]
    return text if text != negative_prompt else None
