"""Between the first pass and the hires pass: sizes and upscaling; part of `modules.processing`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from motion.standalone import images, samplers, shared
from motion.standalone.latents import encode_images, images_to_tensor, tensor_to_image
from motion.standalone.processed import create_infotext
from motion.standalone.processing_base import opt_f

if TYPE_CHECKING:
    from PIL import Image

    from motion.standalone.processing_txt2img import StableDiffusionProcessingTxt2Img

Size = tuple[int, int]


def hires_size(first: Size, scale: float, resize: Size) -> Size:
    """(width, height) in pixels that the first pass is upscaled to, in its own proportions.

    Args:
        first: size of the first pass.
        scale: used where `resize` is (0, 0).
        resize: wanted size; 0 follows from the other; with both, the smallest size that covers it.
    """
    (width, height), (wanted_width, wanted_height) = first, resize
    if resize == (0, 0):
        return int(width * scale), int(height * scale)
    by_width = wanted_height == 0 or (wanted_width != 0 and width / height < wanted_width / wanted_height)
    if by_width:
        return wanted_width, wanted_width * height // width
    return wanted_height * width // height, wanted_height


def cut_middle(latents: torch.Tensor, cut_x: int, cut_y: int) -> torch.Tensor:
    """B c h w latents without `cut_x` columns and `cut_y` rows, taken from both sides alike."""
    height, width = latents.shape[2:]
    return latents[:, :, cut_y // 2 : height - (cut_y + 1) // 2, cut_x // 2 : width - (cut_x + 1) // 2]


def upscale_first_pass(
    p: StableDiffusionProcessingTxt2Img,
    samples: Any,
    decoded: torch.Tensor | None,
    seeds: list[int],
    prompts: list[str],
) -> torch.Tensor:
    """Latents of the first pass at the size of the hires pass, b c h w.

    Args:
        p: the job; its `latent_scale_mode` says whether to work on latents or on pictures.
        samples: latents of the first pass, b c h w.
        decoded: its pictures, b 3 H W in [-1, 1], for work on pictures.
        seeds: of the batch, for saved pictures.
        prompts: of the batch, for saved pictures.
    """
    saves = p.save_samples() and shared.opts.save_images_before_highres_fix
    if p.latent_scale_mode is not None:
        for place in range(len(samples) if saves else 0):
            _save(p, samplers.sample_to_image(samples, place), place, seeds, prompts)
        size = (p.hr_upscale_to_y // opt_f, p.hr_upscale_to_x // opt_f)
        mode, antialias = p.latent_scale_mode["mode"], p.latent_scale_mode["antialias"]
        return torch.nn.functional.interpolate(samples, size=size, mode=mode, antialias=antialias)
    assert decoded is not None, "sample() decodes where upscaling works on pictures"
    enlarged = []
    for place, picture in enumerate(torch.clamp((decoded + 1.0) / 2.0, min=0.0, max=1.0)):
        image = tensor_to_image(picture)
        if saves:
            _save(p, image, place, seeds, prompts)
        target = (p.hr_upscale_to_x, p.hr_upscale_to_y)
        enlarged.append(images.resize_image(0, image, *target, upscaler_name=p.hr_upscaler))
    return encode_images(images_to_tensor(enlarged), p.sd_model)


def _save(
    p: StableDiffusionProcessingTxt2Img, image: Image.Image, place: int, seeds: list[int], prompts: list[str]
) -> None:
    info = create_infotext(
        p, p.all_prompts, p.all_seeds, p.all_subseeds, [], iteration=p.iteration, position_in_batch=place
    )
    folder = p.outpath_samples or shared.opts.outdir_samples or shared.opts.outdir_txt2img_samples
    kind, suffix = shared.opts.samples_format, "-before-highres-fix"
    images.save_image(image, folder, "", seeds[place], prompts[place], kind, info=info, p=p, suffix=suffix)
