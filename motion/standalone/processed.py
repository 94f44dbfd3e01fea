"""What a job results in, and the text that says how; part of `modules.processing`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any

from motion.standalone import errors, samplers, shared
from motion.standalone.infotext_parser import quote
from motion.standalone.processing_base import StableDiffusionProcessing

if TYPE_CHECKING:
    from PIL import Image

_FROM_P = (
    "subseed_strength",
    "width",
    "height",
    "sampler_name",
    "cfg_scale",
    "steps",
    "restore_faces",
    "sd_model_name",
    "sd_model_hash",
    "sd_vae_name",
    "sd_vae_hash",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "extra_generation_params",
    "styles",
    "eta",
    "ddim_discretize",
    "s_churn",
    "s_tmin",
    "s_tmax",
    "s_noise",
    "s_min_uncond",
    "sampler_noise_scheduler_override",
    "is_using_inpainting_conditioning",
)
_JSON_FIELDS = (
    "prompt",
    "all_prompts",
    "negative_prompt",
    "all_negative_prompts",
    "seed",
    "all_seeds",
    "subseed",
    "all_subseeds",
    "subseed_strength",
    "width",
    "height",
    "sampler_name",
    "cfg_scale",
    "steps",
    "batch_size",
    "restore_faces",
    "face_restoration_model",
    "sd_model_name",
    "sd_model_hash",
    "sd_vae_name",
    "sd_vae_hash",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "denoising_strength",
    "extra_generation_params",
    "index_of_first_image",
    "infotexts",
    "styles",
    "job_timestamp",
    "clip_skip",
    "is_using_inpainting_conditioning",
    "version",
)


class Processed:
    """Images of a job with what made them.

    Attributes:
        images: PIL pictures; scripts may append others, and paths or base64 texts.
        index_of_first_image: 1 where a grid stands first.
        infotexts: one for each image.
        info: that of the first.
        comments: what the job told the user, a line each.
    """

    def __init__(
        self,
        p: StableDiffusionProcessing,
        images_list: list[Image.Image],
        seed: Any = -1,
        info: str = "",
        subseed: Any = None,
        all_prompts: list[str] | None = None,
        all_negative_prompts: list[str] | None = None,
        all_seeds: list[int] | None = None,
        all_subseeds: list[int] | None = None,
        index_of_first_image: int = 0,
        infotexts: list[str] | None = None,
        comments: str = "",
    ) -> None:
        self.images: list[Any] = images_list
        self.info = info
        self.infotexts = infotexts or [info] * len(images_list)
        self.index_of_first_image = index_of_first_image
        self.comments = comments + "".join(f"{comment}\n" for comment in p.comments)
        for name in _FROM_P:
            setattr(self, name, getattr(p, name))
        self.batch_size = p.batch_size
        self.denoising_strength = getattr(p, "denoising_strength", None)
        self.image_cfg_scale = getattr(p, "image_cfg_scale", None)
        self.face_restoration_model = None
        self.job_timestamp = shared.state.job_timestamp
        self.clip_skip = shared.opts.CLIP_stop_at_last_layers
        self.version = program_version()
        self.prompt = _first(p.prompt)
        self.negative_prompt = _first(p.negative_prompt)
        self.seed = _seed(seed)
        self.subseed = _seed(subseed)
        self.all_prompts = all_prompts or p.all_prompts or [self.prompt]
        self.all_negative_prompts = all_negative_prompts or p.all_negative_prompts or [self.negative_prompt]
        self.all_seeds = all_seeds or p.all_seeds or [self.seed]
        self.all_subseeds = all_subseeds or p.all_subseeds or [self.subseed]

    def js(self) -> str:
        """The result without its images, as JSON; the API's `info`."""
        fields = {name: getattr(self, name) for name in _JSON_FIELDS}
        fields["prompt"], fields["negative_prompt"] = self.all_prompts[0], self.all_negative_prompts[0]
        return json.dumps(fields, default=lambda unknown: None)

    def infotext(self, p: StableDiffusionProcessing, index: int) -> str:
        """Infotext of image `index`, grids not counted."""
        iteration, position = divmod(index, self.batch_size)
        return create_infotext(
            p, self.all_prompts, self.all_seeds, self.all_subseeds, [], iteration=iteration, position_in_batch=position
        )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _seed(value: Any) -> int:
    return -1 if value is None else int(_first(value))


def program_version() -> str:
    """Name and version of this program, for infotexts."""
    return f"motion-{metadata.version('motion')}" if _is_installed() else "motion"


def _is_installed() -> bool:
    # From a fresh clone the package is found by its folder and has no metadata.
    return any(metadata.distributions(name="motion"))


def create_infotext(
    p: StableDiffusionProcessing,
    all_prompts: list[str],
    all_seeds: list[int],
    all_subseeds: list[int],
    comments: Iterable[str] | None = None,
    iteration: int = 0,
    position_in_batch: int = 0,
    use_main_prompt: bool = False,
    index: int | None = None,
    all_negative_prompts: list[str] | None = None,
) -> str:
    """Text that says how one image was made.

    Values of `p.extra_generation_params` may be text, a list with one entry for each image of the job, or a function
    that is called with this function's arguments, prompt_text and negative_prompt by name; None leaves the key out.

    Args:
        p: the job.
        all_prompts: prompts that `index` counts in.
        all_seeds: seeds of the same images.
        all_subseeds: variation seeds of the same images.
        comments: not used; the name is part of the API.
        iteration: batch, where `index` is not given.
        position_in_batch: image of that batch, where `index` is not given.
        use_main_prompt: describe the whole job: the grid.
        index: image.
        all_negative_prompts: negative prompts of the same images; default: those of the job.
    """
    if use_main_prompt:
        index = 0
    elif index is None:
        index = position_in_batch + iteration * p.batch_size
    negative_prompts = p.all_negative_prompts if all_negative_prompts is None else all_negative_prompts
    given = {
        "p": p,
        "all_prompts": all_prompts,
        "all_seeds": all_seeds,
        "all_subseeds": all_subseeds,
        "comments": comments,
        "iteration": iteration,
        "position_in_batch": position_in_batch,
        "use_main_prompt": use_main_prompt,
        "index": index,
        "all_negative_prompts": negative_prompts,
        "prompt_text": p.main_prompt if use_main_prompt else all_prompts[index],
        "negative_prompt": p.main_negative_prompt if use_main_prompt else negative_prompts[index],
    }
    seeds = (p.all_seeds[0], p.all_subseeds[0]) if use_main_prompt else (all_seeds[index], all_subseeds[index])
    resolved = {key: _resolved(key, value, given) for key, value in _parameters(p, *seeds).items()}
    pairs = [key if key == value else f"{key}: {quote(value)}" for key, value in resolved.items() if value is not None]
    negative = f"\nNegative prompt: {given['negative_prompt']}" if given["negative_prompt"] else ""
    return f"{given['prompt_text']}{negative}\n{', '.join(pairs)}".strip()


def _parameters(p: StableDiffusionProcessing, seed: int, subseed: int) -> dict[str, Any]:
    """Infotext keys in A1111's order; None is left out."""
    opts = shared.opts
    clip_skip = getattr(p, "clip_skip", opts.CLIP_stop_at_last_layers)
    varied = p.subseed_strength != 0
    resized = p.seed_resize_from_w > 0 and p.seed_resize_from_h > 0
    return {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Image CFG scale": getattr(p, "image_cfg_scale", None),
        "Seed": seed,
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash if opts.add_model_hash_to_info else None,
        "Model": p.sd_model_name if opts.add_model_name_to_info else None,
        "VAE hash": p.sd_vae_hash if opts.add_vae_hash_to_info else None,
        "VAE": p.sd_vae_name if opts.add_vae_name_to_info else None,
        "Variation seed": subseed if varied else None,
        "Variation seed strength": p.subseed_strength if varied else None,
        "Seed resize from": f"{p.seed_resize_from_w}x{p.seed_resize_from_h}" if resized else None,
        "Denoising strength": p.extra_generation_params.get("Denoising strength"),
        "Clip skip": None if clip_skip <= 1 else clip_skip,
        "ENSD": opts.eta_noise_seed_delta if opts.eta_noise_seed_delta and _draws_while_sampling(p) else None,
        "RNG": opts.randn_source if opts.randn_source != "GPU" else None,
        **p.extra_generation_params,
        "Version": program_version() if opts.add_version_to_infotext else None,
        "User": p.user if opts.add_user_name_to_info else None,
    }


def _draws_while_sampling(p: StableDiffusionProcessing) -> bool:
    """Whether the sampler adds noise in its steps, which is what eta_noise_seed_delta changes."""
    config = samplers.find_sampler_config(p.sampler_name)
    return p.eta != 0 and config is not None and bool(config.options.get("uses_ensd"))


def _resolved(key: str, value: Any, given: dict[str, Any]) -> Any:
    try:
        if isinstance(value, list):
            return value[given["index"]]
        return value(**given) if callable(value) else value
    except Exception:
        errors.report(f'Error creating infotext for key "{key}"', exc_info=True)
        return None
