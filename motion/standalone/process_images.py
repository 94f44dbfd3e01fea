"""The way of a job through the host; part of `modules.processing`. The order of hooks is A1111's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from motion.errors import SettingsError
from motion.standalone import devices, extra_networks, images, rng, samplers, sd_models, shared
from motion.standalone.latents import decode_latent_batch, stack_pictures, tensor_to_image
from motion.standalone.processed import Processed, create_infotext
from motion.standalone.processing_base import StableDiffusionProcessing, get_fixed_seed, opt_C, opt_f
from motion.standalone.script_base import (
    PostprocessBatchListArgs,
    PostprocessImageArgs,
    PostProcessMaskOverlayArgs,
    PostSampleArgs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class _Output:
    """What a job has made so far."""

    images: list[Any] = field(default_factory=list)
    infotexts: list[str] = field(default_factory=list)


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Run a job. Settings in `p.override_settings` hold for its length.

    Raises:
        SettingsError: the job asks for what this host lacks.
    """
    _refuse_unsupported(p)
    if p.scripts is not None:
        p.scripts.before_process(p)
    opts = shared.opts
    before = {name: opts.data[name] for name in p.override_settings if name in opts.data}
    try:
        wanted = p.override_settings.get("sd_model_checkpoint")
        if wanted is None or sd_models.checkpoint_aliases.get(wanted) is None:
            # As in A1111, an unknown checkpoint means the chosen one.
            p.override_settings.pop("sd_model_checkpoint", None)
            sd_models.reload_model_weights()
        for name, value in p.override_settings.items():
            if name not in opts.data_labels:
                raise SettingsError(f"`override_settings` names the unknown setting {name!r}. Remove it.")
            opts.set(name, value, is_api=True, run_callbacks=False)
            if name == "sd_model_checkpoint":
                sd_models.reload_model_weights()
        samplers.fix_p_invalid_sampler_and_scheduler(p)
        return process_images_inner(p)
    finally:
        if p.override_settings_restore_afterwards:
            opts.data.update(before)


def _refuse_unsupported(p: StableDiffusionProcessing) -> None:
    unsupported = {
        "restore_faces": p.restore_faces,
        "tiling": p.tiling,
        "refiner_checkpoint": p.refiner_checkpoint not in (None, "", "None", "none"),
    }
    for name, is_set in unsupported.items():
        if is_set:
            raise SettingsError(f"This host has no {name.replace('_', ' ')}, got {getattr(p, name)!r}. Leave it out.")


def process_images_inner(p: StableDiffusionProcessing) -> Processed:
    """Run a job under the settings as they are now."""
    if not p.prompt and p.prompt != "":
        raise SettingsError(f"`prompt` must be text or a list of texts, got {p.prompt!r}. Pass at least one.")
    devices.torch_gc()
    _prepare(p)
    if p.scripts is not None:
        p.scripts.process(p)
    output = _Output()
    try:
        with torch.no_grad(), p.sd_model.ema_scope():
            with devices.autocast():
                p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
            if shared.state.job_count == -1:
                shared.state.job_count = p.n_iter
            for number in range(p.n_iter):
                shared.state.skipped = False
                if shared.state.interrupted or shared.state.stopping_generation or not _run_batch(p, number, output):
                    break
        if not output.infotexts:
            output.infotexts.append(Processed(p, []).infotext(p, 0))
        index_of_first_image = _add_grid(p, output)
    finally:
        # A1111 leaves networks active when a job fails; here the model is as before in any case.
        if not p.disable_extra_networks and p.extra_network_data is not None:
            extra_networks.deactivate(p, p.extra_network_data)
    devices.torch_gc()
    result = Processed(
        p,
        images_list=output.images,
        seed=p.all_seeds[0],
        info=output.infotexts[0],
        subseed=p.all_subseeds[0],
        index_of_first_image=index_of_first_image,
        infotexts=output.infotexts,
    )
    if p.scripts is not None:
        p.scripts.postprocess(p, result)
    return result


def _prepare(p: StableDiffusionProcessing) -> None:
    """Seeds, prompts and names, before any script's `process`."""
    seed, subseed = get_fixed_seed(p.seed), get_fixed_seed(p.subseed)
    p.restore_faces, p.tiling = bool(p.restore_faces), bool(p.tiling)
    p.sd_model_name = p.sd_model.sd_checkpoint_info.name_for_extra
    p.sd_model_hash = p.sd_model.sd_model_hash
    p.fill_fields_from_opts()
    p.setup_prompts()
    count = len(p.all_prompts)
    # With a variation strength, images differ by their subseeds alone.
    step = 1 if p.subseed_strength == 0 else 0
    p.all_seeds = seed if isinstance(seed, list) else [int(seed) + place * step for place in range(count)]
    p.all_subseeds = subseed if isinstance(subseed, list) else [int(subseed) + place for place in range(count)]


def _of_batch(p: StableDiffusionProcessing, values: list[Any], number: int) -> list[Any]:
    return values[number * p.batch_size : (number + 1) * p.batch_size]


def _run_batch(p: StableDiffusionProcessing, number: int, output: _Output) -> bool:
    """One batch from prompts to images; False where there is nothing left to make."""
    p.iteration = number
    sd_models.reload_model_weights()  # the hires pass may have loaded another checkpoint
    p.prompts = _of_batch(p, p.all_prompts, number)
    p.negative_prompts = _of_batch(p, p.all_negative_prompts, number)
    p.seeds = _of_batch(p, p.all_seeds, number)
    p.subseeds = _of_batch(p, p.all_subseeds, number)
    p.rng = rng.ImageRNG(
        (getattr(p.sd_model, "latent_channels", opt_C), p.height // opt_f, p.width // opt_f),
        p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
    batch = {"batch_number": number, "prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}
    if p.scripts is not None:
        p.scripts.before_process_batch(p, **batch)
    if len(p.prompts) == 0:
        return False
    p.parse_extra_network_prompts()
    if not p.disable_extra_networks:
        with devices.autocast():
            extra_networks.activate(p, p.extra_network_data or {})
    if p.scripts is not None:
        p.scripts.process_batch(p, **{**batch, "prompts": p.prompts})
    p.setup_conds()
    if number == 0 and not shared.cmd_opts.no_prompt_history:
        _keep_infotext(p)
    if p.n_iter > 1:
        shared.state.job = f"Batch {number + 1} out of {p.n_iter}"
    sd_models.apply_alpha_schedule_override(p.sd_model, p)
    pictures = _sampled(p)
    devices.torch_gc()
    shared.state.nextjob()
    _finish_batch(p, number, pictures, output)
    return True


def _keep_infotext(p: StableDiffusionProcessing) -> None:
    """The last job's infotext, for the paste button."""
    os.makedirs(shared.data_path, exist_ok=True)
    with open(os.path.join(shared.data_path, "params.txt"), "w", encoding="utf8") as file:
        file.write(Processed(p, []).infotext(p, 0))


def _sampled(p: StableDiffusionProcessing) -> torch.Tensor:
    """Pictures of one batch, b 3 H W in [0, 1]."""
    with devices.autocast():
        samples = p.sample(
            conditioning=p.c,
            unconditional_conditioning=p.uc,
            seeds=p.seeds,
            subseeds=p.subseeds,
            subseed_strength=p.subseed_strength,
            prompts=p.prompts,
        )
    if p.scripts is not None:
        arguments = PostSampleArgs(samples)
        p.scripts.post_sample(p, arguments)
        samples = arguments.samples
    if not getattr(samples, "already_decoded", False):
        samples = decode_latent_batch(p.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
    return stack_pictures(samples)


def _finish_batch(p: StableDiffusionProcessing, number: int, pictures: torch.Tensor, output: _Output) -> None:
    """From pictures to saved images."""
    finished: Sequence[torch.Tensor] = list(pictures)
    if p.scripts is not None:
        p.scripts.postprocess_batch(p, pictures, batch_number=number)
        p.prompts = _of_batch(p, p.all_prompts, number)
        p.negative_prompts = _of_batch(p, p.all_negative_prompts, number)
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


def _finish_image(p: StableDiffusionProcessing, image: Image.Image, place: int, save: bool, output: _Output) -> None:
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


def _add_grid(p: StableDiffusionProcessing, output: _Output) -> int:
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
