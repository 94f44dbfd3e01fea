"""From decoded pictures to saved images with their infotext; part of `modules.processing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from motion.standalone import images, shared
from motion.standalone.latents import tensor_to_image
from motion.standalone.processed import create_infotext
from motion.standalone.processing_base import StableDiffusionProcessing
from motion.standalone.script_base import PostprocessBatchListArgs, PostprocessImageArgs, PostProcessMaskOverlayArgs


@dataclass
class Output:
    """What a job has made so far."""

    images: list[Any] = field(default_factory=list)
    infotexts: list[str] = field(default_factory=list)


def of_batch(p: StableDiffusionProcessing, values: list[Any], number: int) -> list[Any]:
    """The part of a list over the whole job that belongs to one batch."""
    return values[number * p.batch_size : (number + 1) * p.batch_size]


def finish_batch(p: StableDiffusionProcessing, number: int, pictures: torch.Tensor, output: Output) -> None:
    """From pictures to saved images."""
    finished: Sequence[torch.Tensor] = list(pictures)
    if p.scripts is not None:
        p.scripts.postprocess_batch(p, pictures, batch_number=number)
        p.prompts = of_batch(p, p.all_prompts, number)
        p.negative_prompts = of_batch(p, p.all_negative_prompts, number)
        arguments = PostprocessBatchListArgs(list(pictures))
        p.scripts.postprocess_batch_list(p, arguments, batch_number=number)
        finished = arguments.images
    save = p.save_samples()
    for place, picture in enumerate(finished):
        p.batch_index = place
        _finish_image(p, tensor_to_image(picture), place, save, output)


def _infotext(p: StableDiffusionProcessing, place: int, use_main_prompt: bool = False) -> str:
    """Infotext of an image of the batch at hand."""
    return create_infotext(
        p,
        p.prompts,
        p.seeds,
        p.subseeds,
        use_main_prompt=use_main_prompt,
        index=place,
        all_negative_prompts=p.negative_prompts,
    )


def _finish_image(p: StableDiffusionProcessing, image: Image.Image, place: int, save: bool, output: Output) -> None:
    """Hooks, overlay, saving and infotext of one image."""
    overlay, mask = _overlay_of(p, place), p.mask_for_overlay
    if p.scripts is not None:
        finished = PostprocessImageArgs(image)
        p.scripts.postprocess_image(p, finished)
        layers = PostProcessMaskOverlayArgs(place, mask, overlay)
        p.scripts.postprocess_maskoverlay(p, layers)
        image, mask, overlay = finished.image, layers.mask_for_overlay, layers.overlay_image
    image, without_overlay = apply_overlay(image, p.paste_to, overlay)
    if p.scripts is not None:
        finished = PostprocessImageArgs(image)
        p.scripts.postprocess_image_after_composite(p, finished)
        image = finished.image
    text = _infotext(p, place)
    if save:
        _save(p, image, place, text)
    output.infotexts.append(text)
    if shared.opts.enable_pnginfo:
        image.info["parameters"] = text
    output.images.append(image)
    if mask is not None:
        output.images += _mask_images(p, mask, without_overlay, place, save, text)


def _overlay_of(p: StableDiffusionProcessing, place: int) -> Image.Image | None:
    overlays = p.overlay_images or []
    return overlays[place] if shared.opts.overlay_inpaint and place < len(overlays) else None


def apply_overlay(
    image: Image.Image, paste_loc: tuple[int, int, int, int] | None, overlay: Image.Image | None
) -> tuple[Image.Image, Image.Image]:
    """(image with the original laid over it, image without that), at the original's size.

    Args:
        image: what was made.
        paste_loc: left, top, width and height of the region that was processed; None for all.
        overlay: the original, transparent where it was painted over; None for no overlay.
    """
    if overlay is None:
        return image, image.copy()
    if paste_loc is not None:
        left, top, width, height = paste_loc
        whole = Image.new("RGBA", overlay.size)
        whole.paste(images.resize_image(1, image, width, height), (left, top))
        image = whole
    without = image.copy()
    image = image.convert("RGBA")
    image.alpha_composite(overlay)
    return image.convert("RGB"), without


def _mask_images(
    p: StableDiffusionProcessing, mask: Image.Image, made: Image.Image, place: int, save: bool, text: str
) -> list[Image.Image]:
    """The further pictures of inpainting that the options ask for; saved here, returned for the gallery."""
    opts, shown = shared.opts, []
    if opts.return_mask or opts.save_mask:
        plain = mask.convert("RGB")
        if save and opts.save_mask:
            _save(p, plain, place, text, suffix="-mask")
        shown += [plain] if opts.return_mask else []
    if opts.return_mask_composite or opts.save_mask_composite:
        shape = images.resize_image(2, mask, made.width, made.height).convert("L")
        nothing = Image.new("RGBa", made.size)
        composite = Image.composite(made.convert("RGBA").convert("RGBa"), nothing, shape).convert("RGBA")
        if save and opts.save_mask_composite:
            _save(p, composite, place, text, suffix="-mask-composite")
        shown += [composite] if opts.return_mask_composite else []
    return shown


def _save(p: StableDiffusionProcessing, image: Image.Image, place: int, text: str, suffix: str = "") -> None:
    folder = p.outpath_samples or shared.opts.outdir_samples or shared.opts.outdir_txt2img_samples
    images.save_image(
        image, folder, "", p.seeds[place], p.prompts[place], shared.opts.samples_format, info=text, p=p, suffix=suffix
    )


def add_grid(p: StableDiffusionProcessing, output: Output) -> int:
    """Put a grid of all images before them, where the options ask for one; returns the index of the first image."""
    opts = shared.opts
    too_few = len(output.images) < 2 and opts.grid_only_if_multiple
    if p.do_not_save_grid or too_few or not output.images or not (opts.return_grid or opts.grid_save):
        return 0
    grid = images.image_grid(output.images, p.batch_size)
    text = _infotext(p, 0, use_main_prompt=True)
    if opts.return_grid:
        if opts.enable_pnginfo:
            grid.info["parameters"] = text
        output.infotexts.insert(0, text)
        output.images.insert(0, grid)
    if opts.grid_save:
        images.save_image(
            grid,
            p.outpath_grids or opts.outdir_grids or opts.outdir_txt2img_grids,
            "grid",
            p.all_seeds[0],
            p.all_prompts[0],
            opts.grid_format,
            info=text,
            short_filename=not opts.grid_extended_filename,
            p=p,
            grid=True,
        )
    return int(bool(opts.return_grid))
