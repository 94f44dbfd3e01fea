"""What the user asks of a job, and what becomes of it; part of `modules.processing`."""

# ruff: noqa: RUF009 - the calls make dataclass fields and descriptors
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from motion.standalone import host_state, shared

if TYPE_CHECKING:
    from PIL import Image

    from motion.standalone.extra_networks import ExtraNetworkData
    from motion.standalone.rng import ImageRNG
    from motion.standalone.samplers.common import Sampler
    from motion.standalone.script_runner import ScriptRunner

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
class ProcessingFields:
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
