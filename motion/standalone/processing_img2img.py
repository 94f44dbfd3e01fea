"""The img2img job, inpainting included; part of `modules.processing`."""

# ruff: noqa: RUF009 - the calls make dataclass fields and descriptors
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps

from motion.errors import SettingsError
from motion.standalone import devices, images, masking, rng, samplers, shared
from motion.standalone.latents import encode_images, images_to_tensor
from motion.standalone.processing_base import StableDiffusionProcessing, opt_f
from motion.standalone.processing_fields import filled_later, unset
from motion.standalone.script_base import MaskBlendArgs

if TYPE_CHECKING:
    from motion.standalone.masking import Region

FILL, ORIGINAL, LATENT_NOISE, LATENT_NOTHING = range(4)
LATENT_RESIZE = 3


class _MaskBlur:
    """`p.mask_blur`: mask_blur_x and mask_blur_y in one; None where they differ."""

    def __get__(self, instance: Any, owner: type) -> int | None:
        if instance is None or instance.mask_blur_x != instance.mask_blur_y:
            return None
        return int(instance.mask_blur_x)

    def __set__(self, instance: Any, value: int | None) -> None:
        if value is not None:
            instance.mask_blur_x = instance.mask_blur_y = value


def create_binary_mask(image: Image.Image, round: bool = True) -> Image.Image:
    """A mask as one channel: from the transparency where there is any, else from the brightness."""
    if image.mode == "RGBA" and image.getextrema()[-1] != (255, 255):
        alpha = image.getchannel("A")
        return alpha.point(lambda value: 255 if value > 128 else 0) if round else alpha
    return image.convert("L")


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """A job from pictures: `init_images`, one for the whole batch or one for each image."""

    init_images: list[Image.Image] = unset()
    resize_mode: int = 0
    denoising_strength: float | None = 0.75
    image_cfg_scale: float | None = None
    mask: Any = None
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_blur: Any = _MaskBlur()
    mask_round: bool = True
    inpainting_fill: int = FILL
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float | None = None
    latent_mask: Image.Image | None = None
    force_task_id: str | None = None

    image_mask: Any = filled_later()
    nmask: torch.Tensor | None = filled_later()
    image_conditioning: torch.Tensor | None = filled_later()
    init_latent: torch.Tensor = filled_later()

    def __post_init__(self) -> None:
        super().__post_init__()
        # `mask` becomes the latent mask that samplers read; the picture that was given moves to `image_mask`.
        self.image_mask, self.mask = self.mask, None
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = shared.opts.initial_noise_multiplier

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Make the sampler, resize the pictures, encode them and the mask.

        Raises:
            SettingsError: no picture, or more pictures than images in a batch.
        """
        if not self.init_images:
            raise SettingsError("img2img needs a picture to start from, got none. Pass one in `init_images`.")
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.image_cfg_scale = None
        self.sampler = samplers.create_sampler(self.sampler_name, self.sd_model)
        image_mask, crop_region = self._prepared_mask()
        latent_mask = self.latent_mask if self.latent_mask is not None else image_mask
        prepared = [self._prepared_image(image, image_mask, latent_mask, crop_region) for image in self.init_images]
        self.init_latent = self._encoded(prepared)
        if image_mask is not None and latent_mask is not None:
            self._mask_latents(latent_mask, all_seeds)
        self.image_conditioning = self.img2img_image_conditioning(self.init_latent, self.init_latent)

    def _prepared_mask(self) -> tuple[Image.Image | None, Region | None]:
        """(mask at the job's size, or None; region of the picture that is processed, or None for all of it)."""
        if self.image_mask is None:
            return None, None
        mask = create_binary_mask(self.image_mask, round=self.mask_round)
        if self.inpainting_mask_invert:
            mask = ImageOps.invert(mask)
            self.extra_generation_params["Mask mode"] = "Inpaint not masked"
        if self.mask_blur_x > 0 or self.mask_blur_y > 0:
            mask = mask.filter(ImageFilter.GaussianBlur((self.mask_blur_x, self.mask_blur_y)))
            self.extra_generation_params["Mask blur"] = self.mask_blur
        self.overlay_images = []
        if not self.inpaint_full_res:
            mask = images.resize_image(self.resize_mode, mask, self.width, self.height)
            self.mask_for_overlay = mask.convert("L").point(lambda value: min(value * 2, 255))
            return mask, None
        region = masking.get_crop_region_v2(mask, self.inpaint_full_res_padding)
        if region is None:
            self.inpaint_full_res = False
            self.comment("The mask is empty; the whole picture was processed.")
            return None, None
        self.mask_for_overlay = mask
        region = masking.expand_crop_region(region, self.width, self.height, mask.width, mask.height)
        left, top, right, bottom = region
        self.paste_to = (left, top, right - left, bottom - top)
        self.extra_generation_params["Inpaint area"] = "Only masked"
        self.extra_generation_params["Masked area padding"] = self.inpaint_full_res_padding
        return images.resize_image(2, mask.crop(region), self.width, self.height), region

    def _prepared_image(
        self,
        image: Image.Image,
        image_mask: Image.Image | None,
        latent_mask: Image.Image | None,
        crop_region: Region | None,
    ) -> Image.Image:
        """A start picture at the job's size, masked parts filled; its overlay goes to `overlay_images`."""
        image = images.flatten(image, shared.opts.img2img_background_color)
        if crop_region is None and self.resize_mode != LATENT_RESIZE:
            image = images.resize_image(self.resize_mode, image, self.width, self.height)
        if image_mask is None or latent_mask is None:
            return image
        assert self.mask_for_overlay is not None, "set with the mask"
        assert self.overlay_images is not None, "set with the mask"
        if self.mask_for_overlay.size != image.size:
            self.mask_for_overlay = images.resize_image(self.resize_mode, self.mask_for_overlay, *image.size)
        overlay = Image.new("RGBa", image.size)
        keep = ImageOps.invert(self.mask_for_overlay.convert("L"))
        overlay.paste(image.convert("RGBA").convert("RGBa"), mask=keep)
        self.overlay_images.append(overlay.convert("RGBA"))
        if crop_region is not None:
            image = images.resize_image(2, image.crop(crop_region), self.width, self.height)
        if self.inpainting_fill != ORIGINAL:
            image = masking.fill(image, latent_mask)
            if self.inpainting_fill == FILL:
                self.extra_generation_params["Masked content"] = "fill"
        return image

    def _encoded(self, prepared: list[Image.Image]) -> torch.Tensor:
        """Latents of the batch, b c h w; a single picture is encoded once and repeated."""
        if 1 < len(prepared) != self.batch_size:
            if len(prepared) > self.batch_size:
                raise SettingsError(
                    f"Expected at most {self.batch_size} start pictures, one for each image of the batch, got "
                    f"{len(prepared)}. Raise the batch size."
                )
            self.batch_size = len(prepared)
        latents = encode_images(images_to_tensor(prepared), self.sd_model)
        if self.resize_mode == LATENT_RESIZE:
            size = (self.height // opt_f, self.width // opt_f)
            latents = torch.nn.functional.interpolate(latents, size=size, mode="bilinear")
        if len(prepared) == 1:
            latents = latents.expand(self.batch_size, -1, -1, -1).clone()
            self.overlay_images = self.overlay_images and self.overlay_images * self.batch_size
        devices.torch_gc()
        return latents

    def _mask_latents(self, latent_mask: Image.Image, all_seeds: list[int]) -> None:
        """Fill `mask` (1 keeps) and `nmask` (1 paints), c h w, and what is painted over."""
        channels, height, width = self.init_latent.shape[1:]
        values = np.asarray(latent_mask.convert("RGB").resize((width, height)), dtype=np.float32)[:, :, 0] / 255
        values = np.around(values) if self.mask_round else values
        painted = torch.from_numpy(np.tile(values[None], (channels, 1, 1))).to(self.init_latent)
        self.mask, self.nmask = 1.0 - painted, painted
        if self.inpainting_fill == LATENT_NOISE:
            noise = rng.ImageRNG(self.init_latent.shape[1:], all_seeds[: len(self.init_latent)]).next()
            self.init_latent = self.init_latent * self.mask + noise.to(self.init_latent) * self.nmask
            self.extra_generation_params["Masked content"] = "latent noise"
        elif self.inpainting_fill == LATENT_NOTHING:
            self.init_latent = self.init_latent * self.mask
            self.extra_generation_params["Masked content"] = "latent nothing"

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """One batch of latents, b c h w."""
        x = self.rng.next()
        if self.initial_noise_multiplier is not None and self.initial_noise_multiplier != 1.0:
            self.extra_generation_params["Noise multiplier"] = self.initial_noise_multiplier
            x = x * self.initial_noise_multiplier
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(
                p=self, x=self.init_latent, noise=x, c=conditioning, uc=unconditional_conditioning
            )
        assert self.sampler is not None, "made in init()"
        samples = self.sampler.sample_img2img(
            self,
            self.init_latent,
            x,
            conditioning,
            unconditional_conditioning,
            image_conditioning=self.image_conditioning,
        )
        if self.mask is not None and self.nmask is not None:
            samples = self._blended(samples, self.mask, self.nmask)
        devices.torch_gc()
        return samples

    def _blended(self, samples: torch.Tensor, mask: torch.Tensor, nmask: torch.Tensor) -> torch.Tensor:
        blended = samples * nmask + self.init_latent * mask
        if self.scripts is None:
            return blended
        arguments = MaskBlendArgs(samples, nmask, self.init_latent, mask, blended)
        self.scripts.on_mask_blend(self, arguments)
        return arguments.blended_latent
