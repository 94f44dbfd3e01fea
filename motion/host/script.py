"""The always-on script: a thin layer that hands the host's events to the request's generation."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from modules import scripts

from motion.errors import MotionError
from motion.host.generation import ClipGeneration
from motion.host.module_files import ModelFiles
from motion.host.sample_hook import current_generation, set_generation
from motion.host.ui import build_controls, infotext_fields
from motion.settings import MotionSettings

logger = logging.getLogger(__name__)


class MotionScript(scripts.Script):  # type: ignore[misc]
    """One accordion in txt2img and img2img.

    Hosts log and swallow what these hooks raise and then go on making stills. So a hook never lets an error pass: the
    generation keeps it and raises it from `p.sample`, where the host shows it and stops.
    """

    files: ClassVar[ModelFiles] = ModelFiles()  # both tabs share it, and the module that it keeps loaded

    def __init__(self) -> None:
        super().__init__()
        self._prompt_boxes: list[Any] = []

    def title(self) -> str:
        """Name in the page and key in the API's `alwayson_scripts`."""
        return "Motion"

    def show(self, is_img2img: bool) -> Any:
        """Always visible, in both tabs."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """The accordion's controls, in the order of the settings' fields."""
        controls = build_controls("img2img" if is_img2img else "txt2img", self.files, self._prompt_boxes)
        self.infotext_fields = infotext_fields(controls)
        self.paste_field_names = [name for _, name in self.infotext_fields if isinstance(name, str)]
        return list(controls.values())

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """The host has made a part of its page; prompts come before the scripts' controls."""
        tab = "img2img" if self.is_img2img else "txt2img"
        if getattr(component, "elem_id", None) in (f"{tab}_prompt", f"{tab}_neg_prompt"):
            self._prompt_boxes.append(component)

    def before_process(self, p: Any, *args: Any) -> None:
        """Read the request and check everything that can be checked before sampling."""
        set_generation(p, None)
        try:
            settings = MotionSettings.from_arguments(args)
        except MotionError as error:
            set_generation(p, ClipGeneration.refused(p, error))
            return
        if settings.enabled:
            generation = ClipGeneration(p, settings, self.files)
            set_generation(p, generation)
            generation.guard(generation.prepare)

    def process(self, p: Any, *args: Any) -> None:
        """The checkpoint of this request is loaded now: check that the module fits it."""
        generation = current_generation(p)
        if generation is not None:
            generation.guard(generation.check_model)

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Sampling begins; refuse when somebody replaced `p.sample` without calling ours."""
        generation = current_generation(p)
        if generation is not None:
            generation.begin_sampling()

    def postprocess_image_after_composite(self, p: Any, pp: Any, *args: Any) -> None:
        """One frame has passed the other scripts' hands."""
        generation = current_generation(p)
        if generation is not None:
            generation.guard(generation.take_frame, pp)

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """All clips are made: put them into the result."""
        generation = current_generation(p)
        if generation is not None:
            generation.deliver(processed)
