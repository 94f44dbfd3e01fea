"""The way of a job through the host; part of `modules.processing`. The order of hooks is A1111's."""

from __future__ import annotations

import os

import torch

from motion.errors import SettingsError
from motion.standalone import devices, extra_networks, rng, samplers, sd_models, shared
from motion.standalone.finished_images import Output, add_grid, finish_batch, of_batch
from motion.standalone.latents import decode_latent_batch, stack_pictures
from motion.standalone.processed import Processed
from motion.standalone.processing_base import StableDiffusionProcessing, get_fixed_seed, opt_C, opt_f
from motion.standalone.script_base import PostSampleArgs


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
    output = Output()
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
        index_of_first_image = add_grid(p, output)
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


def _run_batch(p: StableDiffusionProcessing, number: int, output: Output) -> bool:
    """One batch from prompts to images; False where there is nothing left to make."""
    p.iteration = number
    sd_models.reload_model_weights()  # the hires pass may have loaded another checkpoint
    p.prompts = of_batch(p, p.all_prompts, number)
    p.negative_prompts = of_batch(p, p.all_negative_prompts, number)
    p.seeds = of_batch(p, p.all_seeds, number)
    p.subseeds = of_batch(p, p.all_subseeds, number)
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
    finish_batch(p, number, pictures, output)
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
