"""The class that extensions derive from, and what its callbacks receive; part of `modules.scripts`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from motion.standalone.api_models import ScriptInfo

AlwaysVisible = object()
"""Returned by `Script.show`: the script takes part in every job."""


class ScriptFile(NamedTuple):
    """A script's file: its extension's folder, its name, its path."""

    basedir: str
    filename: str
    path: str


class MaskBlendArgs:
    """Original and inpainted latents about to be blended; without a denoiser it is the final blend."""

    def __init__(
        self,
        current_latent: torch.Tensor,
        nmask: torch.Tensor,
        init_latent: torch.Tensor,
        mask: torch.Tensor,
        blended_latent: torch.Tensor,
        denoiser: Any = None,
        sigma: torch.Tensor | None = None,
    ) -> None:
        self.current_latent = current_latent
        self.nmask = nmask
        self.init_latent = init_latent
        self.mask = mask
        self.blended_latent = blended_latent
        self.denoiser = denoiser
        self.is_final_blend = denoiser is None
        self.sigma = sigma


@dataclass(eq=False)
class PostSampleArgs:
    """What sampling returned: latents b c h w, or a list with `already_decoded`."""

    samples: Any


@dataclass(eq=False)
class PostprocessImageArgs:
    """One finished image."""

    image: Image.Image


@dataclass(eq=False)
class PostProcessMaskOverlayArgs:
    """Mask and overlay of one image, after inpainting."""

    index: int
    mask_for_overlay: Image.Image | None
    overlay_image: Image.Image | None


@dataclass(eq=False)
class PostprocessBatchListArgs:
    """The images of a batch, each c h w in [0, 1]; may be replaced by more or fewer."""

    images: list[torch.Tensor]


@dataclass(eq=False)
class OnComponent:
    """A component of the page."""

    component: Any


class Script:
    """Base of all scripts. `*args` are the values of what `ui` returned.

    Attributes:
        name: the title in lower case.
        section: where on the page the controls go; None is the place of scripts.
        filename: file of the class.
        args_from: first of this script's arguments in `p.script_args`.
        args_to: one after the last.
        alwayson: takes part in every job.
        is_txt2img: belongs to the txt2img tab.
        is_img2img: belongs to the img2img tab.
        tabname: "txt2img" or "img2img".
        group: gradio group around the controls.
        create_group: whether to make that group.
        infotext_fields: (component, infotext key or function), set by `ui`.
        paste_field_names: infotext keys that "send to" buttons carry, set by `ui`.
        api_info: what the API tells about the script.
        on_before_component_elem_id: (element id, callback), moved to the runner.
        on_after_component_elem_id: the same, for after.
        setup_for_ui_only: `setup` isn't called for jobs of the API.
        controls: what `ui` returned.
    """

    name: str | None = None
    section: str | None = None
    filename: str | None = None
    args_from: int | None = None
    args_to: int | None = None
    alwayson: bool = False
    is_txt2img: bool = False
    is_img2img: bool = False
    tabname: str | None = None
    group: Any = None
    create_group: bool = True
    infotext_fields: list[Any] | None = None
    paste_field_names: list[str] | None = None
    api_info: ScriptInfo | None = None
    on_before_component_elem_id: list[tuple[str, Callable[[OnComponent], Any]]] | None = None
    on_after_component_elem_id: list[tuple[str, Callable[[OnComponent], Any]]] | None = None
    setup_for_ui_only: bool = False
    controls: Sequence[Any] | None = None

    def title(self) -> str:
        """Name of the script in the UI."""
        raise NotImplementedError

    def ui(self, is_img2img: bool) -> Sequence[Any] | None:
        """Make the controls and return those whose values are the script's arguments."""

    def show(self, is_img2img: bool) -> Any:
        """False: not in this tab; True: in the list of scripts; AlwaysVisible: takes part in every job."""
        return True

    def run(self, p: Any, *args: Any) -> Any:
        """Only for the script chosen in the list: make the images and return Processed."""

    def setup(self, p: Any, *args: Any) -> None:
        """The processing object has got its scripts and arguments."""

    def before_process(self, p: Any, *args: Any) -> None:
        """First of all; override_settings are not yet applied and the checkpoint may change."""

    def process(self, p: Any, *args: Any) -> None:
        """Checkpoint, prompts and seeds are known; `p.init` follows."""

    def before_process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """A batch begins (batch_number, prompts, seeds, subseeds); extra networks are not yet parsed."""

    def after_extra_networks_activate(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Extra networks are active (also extra_network_data); prompts are not yet encoded."""

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Sampling begins (x, noise, c, uc); twice with a hires pass."""

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Prompts are parsed and about to be encoded (batch_number, prompts, seeds, subseeds)."""

    def postprocess_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """A batch is decoded (batch_number, images: b c h w in [0, 1])."""

    def postprocess_batch_list(self, p: Any, pp: PostprocessBatchListArgs, *args: Any, **kwargs: Any) -> None:
        """The same as a list that may grow or shrink; then p.prompts, p.seeds … must follow."""

    def on_mask_blend(self, p: Any, mba: MaskBlendArgs, *args: Any) -> None:
        """Original and inpainted latents are about to be blended."""

    def post_sample(self, p: Any, ps: PostSampleArgs, *args: Any) -> None:
        """Sampling has ended; latents are not yet decoded unless `ps.samples.already_decoded`."""

    def postprocess_image(self, p: Any, pp: PostprocessImageArgs, *args: Any) -> None:
        """An image is made."""

    def postprocess_maskoverlay(self, p: Any, ppmo: PostProcessMaskOverlayArgs, *args: Any) -> None:
        """The overlay of an image is about to be applied."""

    def postprocess_image_after_composite(self, p: Any, pp: PostprocessImageArgs, *args: Any) -> None:
        """The overlay of an image is applied."""

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """The job has ended without an exception."""

    def before_component(self, component: Any, **kwargs: Any) -> None:
        """A component of the page is about to be made."""

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """A component of the page was made."""

    def on_before_component(self, callback: Callable[[OnComponent], Any], *, elem_id: str) -> None:
        """Call `callback` before the component `elem_id` is made."""
        self.on_before_component_elem_id = [*(self.on_before_component_elem_id or []), (elem_id, callback)]

    def on_after_component(self, callback: Callable[[OnComponent], Any], *, elem_id: str) -> None:
        """Call `callback` after the component `elem_id` was made."""
        self.on_after_component_elem_id = [*(self.on_after_component_elem_id or []), (elem_id, callback)]

    def describe(self) -> str:
        """Not used."""
        return ""

    def elem_id(self, item_id: str) -> str:
        """HTML id of a control: script_[tab_]title_item."""
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        return f"script_{_tab_prefix(self)}{title}_{item_id}"

    def before_hr(self, p: Any, *args: Any) -> None:
        """The hires pass is about to be sampled."""


class ScriptBuiltinUI(Script):
    """A part of the page itself, written as a script."""

    setup_for_ui_only = True

    def elem_id(self, item_id: str) -> str:
        """HTML id of a control: [tab_]item."""
        return f"{_tab_prefix(self)}{item_id}"

    def show(self, is_img2img: bool) -> Any:
        """Always."""
        return AlwaysVisible


def _tab_prefix(script: Script) -> str:
    """The tab's name, where the script stands in both tabs alike and ids would clash."""
    if script.show(True) != script.show(False):
        return ""
    return "img2img_" if script.is_img2img else "txt2img_"
