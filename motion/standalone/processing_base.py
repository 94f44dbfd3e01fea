"""What a job of either tab is; part of `modules.processing`."""

# ruff: noqa: RUF009 - the calls make dataclass fields and descriptors
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from motion.standalone import devices, extra_networks, host_state, samplers, shared
from motion.standalone.text import prompt_parser

if TYPE_CHECKING:
    from PIL import Image

    from motion.standalone.extra_networks import ExtraNetworkData
    from motion.standalone.rng import ImageRNG
    from motion.standalone.samplers.common import Sampler
    from motion.standalone.script_runner import ScriptRunner

opt_C = 4  # noqa: N816 - the API's name: channels of a latent
opt_f = 8  # pixels in a latent's pixel, each way

CondCache = list[Any]
"""[what the conds were made from or None, conds]"""


class _LoadedModel:
    """`p.sd_model`: whatever the host has loaded. Assigning does nothing, as in A1111."""

    def __get__(self, instance: object | None, owner: type) -> Any:
        return None if instance is None else shared.sd_model

    def __set__(self, instance: object, value: Any) -> None:
        pass


def unset() -> Any:
    """A constructor argument that is None unless given, and something else from `__post_init__` on."""
    return field(default=None)


def filled_later() -> Any:
    """A field that is None until a step of the job fills it."""
    return field(default=None, init=False)


def cond_cache(kind: str) -> CondCache:
    """The host's cache of one kind of conds."""
    return host_state.current().cond_caches.setdefault(kind, [None, None])


@dataclass(repr=False)
class StableDiffusionProcessing:
    """A job: what the user asks for (first fields), and what becomes of it (fields that the constructor lacks).

    Names, order and defaults are A1111's; scripts read and change them. Not supported, and refused when set, are
    face restoration, tiling and the refiner.
    """

    sd_model: Any = _LoadedModel()
    outpath_samples: str | None = None
    outpath_grids: str | None = None
    prompt: Any = ""
    prompt_for_display: str | None = None
    negative_prompt: Any = ""
    styles: list[str] = unset()
    seed: Any = -1
    subseed: Any = -1
    subseed_strength: float = 0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    seed_enable_extras: bool = True
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: dict[str, Any] = unset()
    overlay_images: list[Image.Image] | None = None
    eta: float | None = None
    do_not_reload_embeddings: bool = False
    denoising_strength: float | None = None
    ddim_discretize: str | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: dict[str, Any] = unset()
    override_settings_restore_afterwards: bool = True
    sampler_index: int | None = None
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool = False
    firstpass_image: Image.Image | None = None

    scripts_value: ScriptRunner | None = filled_later()
    script_args_value: Any = field(default=(), init=False)
    scripts_setup_complete: bool = field(default=False, init=False)
    comments: dict[str, int] = field(default_factory=dict, init=False)
    sampler: Sampler | None = filled_later()
    is_using_inpainting_conditioning: bool = field(default=False, init=False)
    paste_to: tuple[int, int, int, int] | None = filled_later()
    is_hr_pass: bool = field(default=False, init=False)
    c: Any = filled_later()
    uc: Any = filled_later()
    rng: ImageRNG = filled_later()
    step_multiplier: int = field(default=1, init=False)
    firstpass_steps: int = field(default=0, init=False)
    all_prompts: list[str] = filled_later()
    all_negative_prompts: list[str] = filled_later()
    all_seeds: list[int] = filled_later()
    all_subseeds: list[int] = filled_later()
    iteration: int = field(default=0, init=False)
    batch_index: int = field(default=0, init=False)
    main_prompt: str = field(default="", init=False)
    main_negative_prompt: str = field(default="", init=False)
    prompts: list[str] = filled_later()
    negative_prompts: list[str] = filled_later()
    seeds: list[int] = filled_later()
    subseeds: list[int] = filled_later()
    extra_network_data: ExtraNetworkData | None = filled_later()
    user: str | None = filled_later()
    sd_model_name: str | None = filled_later()
    sd_model_hash: str | None = filled_later()
    sd_vae_name: str | None = filled_later()
    sd_vae_hash: str | None = filled_later()
    is_api: bool = field(default=False, init=False)
    mask_for_overlay: Image.Image | None = filled_later()
    sampler_noise_scheduler_override: Any = filled_later()
    refiner_checkpoint_info: Any = filled_later()

    def __post_init__(self) -> None:
        self.styles = self.styles or []
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        if not self.seed_enable_extras:
            self.subseed, self.subseed_strength = -1, 0
            self.seed_resize_from_h = self.seed_resize_from_w = 0
        self.cached_uc = cond_cache("uc")
        self.cached_c = cond_cache("c")

    # Scripts

    @property
    def scripts(self) -> ScriptRunner | None:
        """Runner of the scripts; their hook `setup` is called once runner and arguments are both there."""
        return self.scripts_value

    @scripts.setter
    def scripts(self, value: ScriptRunner | None) -> None:
        self.scripts_value = value
        self._setup_once()

    @property
    def script_args(self) -> Any:
        """Arguments of all scripts, in the order of the runner's `inputs`."""
        return self.script_args_value

    @script_args.setter
    def script_args(self, value: Any) -> None:
        self.script_args_value = value
        self._setup_once()

    def _setup_once(self) -> None:
        if self.scripts_value and self.script_args_value and not self.scripts_setup_complete:
            self.setup_scripts()

    def setup_scripts(self) -> None:
        """Call the hook `setup`."""
        self.scripts_setup_complete = True
        if self.scripts is not None:
            self.scripts.setup_scrips(self, is_ui=not self.is_api)

    def comment(self, text: str) -> None:
        """Tell the user something beside the result."""
        self.comments[text] = 1

    # Steps of the job

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Prepare what all batches share."""

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """Latents of one batch, b c h w, or a list of pictures c h w in [-1, 1] that has `already_decoded`."""
        raise NotImplementedError

    def close(self) -> None:
        """The job is over: drop what it no longer needs."""
        self.sampler = None
        self.c = self.uc = None
        if not shared.opts.persistent_cond_cache:
            host_state.current().cond_caches.clear()

    def fill_fields_from_opts(self) -> None:
        """Take the stochastic sampling parameters that the job doesn't set from the options."""
        for name in ("s_min_uncond", "s_churn", "s_tmin", "s_tmax", "s_noise"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(shared.opts, name))
        self.s_tmax = self.s_tmax or float("inf")

    def setup_prompts(self) -> None:
        """Fill `all_prompts` and `all_negative_prompts`, styles applied.

        Raises:
            RuntimeError: lists of different lengths.
        """
        count = self.batch_size * self.n_iter
        if not isinstance(self.prompt, list) and isinstance(self.negative_prompt, list):
            count = len(self.negative_prompt)
        prompts = as_list(self.prompt, count)
        negative = as_list(self.negative_prompt, len(prompts))
        if len(prompts) != len(negative):
            raise RuntimeError(
                f"Received a different number of prompts ({len(prompts)}) and negative prompts ({len(negative)})"
            )
        self.all_prompts, self.all_negative_prompts = self._styled(prompts, negative)
        self.main_prompt = self.all_prompts[0]
        self.main_negative_prompt = self.all_negative_prompts[0]

    def _styled(self, prompts: list[str], negative: list[str]) -> tuple[list[str], list[str]]:
        styles = shared.prompt_styles
        return (
            [styles.apply_styles_to_prompt(text, self.styles) for text in prompts],
            [styles.apply_negative_styles_to_prompt(text, self.styles) for text in negative],
        )

    def parse_extra_network_prompts(self) -> None:
        """Take the tags of extra networks out of `prompts`."""
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def setup_conds(self) -> None:
        """Encode `prompts` and `negative_prompts` into `c` and `uc`."""
        prompts = prompt_parser.SdConditioning(self.prompts, width=self.width, height=self.height)
        negative = prompt_parser.SdConditioning(
            self.negative_prompts, width=self.width, height=self.height, is_negative_prompt=True
        )
        total = total_steps(self.sampler_name, self.steps)
        self.step_multiplier = total // self.steps
        self.firstpass_steps = total
        data = self.extra_network_data
        self.uc = self.get_conds_with_caching(
            prompt_parser.get_learned_conditioning, negative, total, [self.cached_uc], data
        )
        self.c = self.get_conds_with_caching(
            prompt_parser.get_multicond_learned_conditioning, prompts, total, [self.cached_c], data
        )

    def get_conds(self) -> tuple[Any, Any]:
        """(c, uc) of this pass."""
        return self.c, self.uc

    def cached_params(
        self,
        required_prompts: Any,
        steps: int,
        extra_network_data: ExtraNetworkData | None,
        hires_steps: int | None = None,
        use_old_scheduling: bool = False,
    ) -> tuple[Any, ...]:
        """All that conds depend on."""
        options = [shared.opts.CLIP_stop_at_last_layers, shared.opts.emphasis, shared.opts.comma_padding_backtrack]
        checkpoint = shared.sd_model.sd_checkpoint_info
        size = (self.width, self.height)
        return (
            list(required_prompts),
            steps,
            hires_steps,
            use_old_scheduling,
            *options,
            checkpoint,
            extra_network_data,
            size,
        )

    def get_conds_with_caching(
        self,
        function: Callable[..., Any],
        required_prompts: Any,
        steps: int,
        caches: list[CondCache],
        extra_network_data: ExtraNetworkData | None,
        hires_steps: int | None = None,
    ) -> Any:
        """`function(sd_model, required_prompts, steps, …)`, or what it returned for the same arguments before.

        Args:
            function: encodes prompts.
            required_prompts: prompts of one batch.
            steps: steps of the first pass.
            caches: places to look in; the first one takes a new result.
            extra_network_data: networks that are active.
            hires_steps: steps of the hires pass, if that is what is encoded.
        """
        old_scheduling = shared.opts.use_old_scheduling
        made_from = self.cached_params(required_prompts, steps, extra_network_data, hires_steps, old_scheduling)
        for cache in caches:
            if cache[0] is not None and cache[0] == made_from:
                return cache[1]
        with devices.autocast():
            conds = function(shared.sd_model, required_prompts, steps, hires_steps, old_scheduling)
        caches[0][:] = made_from, conds
        return conds

    def txt2img_image_conditioning(
        self, x: torch.Tensor, width: int | None = None, height: int | None = None
    ) -> torch.Tensor:
        """Image conditioning of a model that has none: zeros b 5 1 1."""
        return x.new_zeros(x.shape[0], 5, 1, 1)

    def img2img_image_conditioning(
        self,
        source_image: torch.Tensor,
        latent_image: torch.Tensor,
        image_mask: Any = None,
        round_image_mask: bool = True,
    ) -> torch.Tensor:
        """Image conditioning of a model that has none: zeros b 5 1 1."""
        return latent_image.new_zeros(latent_image.shape[0], 5, 1, 1)

    def save_samples(self) -> bool:
        """Whether images are written to disk."""
        complete = not shared.state.interrupted and not shared.state.skipped
        wanted = shared.opts.samples_save and not self.do_not_save_samples
        return bool(wanted and (complete or shared.opts.save_incomplete_images))


def as_list(value: Any, count: int) -> list[Any]:
    """A list as it is; anything else `count` times."""
    return value if isinstance(value, list) else [value] * count


def total_steps(sampler_name: str | None, steps: int) -> int:
    """Model calls of `steps` steps with a sampler."""
    config = samplers.find_sampler_config(sampler_name)
    return config.total_steps(steps) if config else steps


def get_fixed_seed(seed: Any) -> Any:
    """A seed to use: random for -1, "" and None; lists stay."""
    if isinstance(seed, list):
        return seed
    if isinstance(seed, str):
        seed = int(seed) if seed.strip().lstrip("-").isdigit() else -1
    if seed is None or seed == -1:
        return random.randrange(4294967294)
    return seed


def fix_seed(p: StableDiffusionProcessing) -> None:
    """Draw the seeds that are to be random now, so that they can be used again."""
    p.seed = get_fixed_seed(p.seed)
    p.subseed = get_fixed_seed(p.subseed)
