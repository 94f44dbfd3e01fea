"""A line in the accordion that says what the clip will take, before Generate."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from types import SimpleNamespace
from typing import Any

import gradio as gr
from modules import sd_models

from motion.context.estimate import RunEstimate, UNetNeeds
from motion.context.plan import WindowPlan
from motion.errors import MotionError
from motion.host.detect import adapter_for
from motion.host.module_files import ModelFiles
from motion.injection import find_sites
from motion.settings import MotionSettings

_FIELDS = (
    "motion_module",
    "module_family",
    "num_frames",
    "context_length",
    "context_overlap",
    "context_stride",
    "closed_loop",
    "context_schedule",
    "window_scope",
)
_OF_REQUEST = {
    "steps": "steps",
    "width": "width",
    "height": "height",
    "hr-checkbox": "enable_hr",
    "hr_scale": "hr_scale",
    "hr_resize_x": "hr_resize_x",
    "hr_resize_y": "hr_resize_y",
}
"""What the web UI's element ids end with, behind the tab's name -> attribute of the request."""
_SIZE = ("width", "height")


def request_control(tab: str, elem_id: str | None) -> str | None:
    """The request's attribute that the web UI's control `elem_id` sets, of those that an estimate needs."""
    prefix = f"{tab}_"
    return _OF_REQUEST.get(elem_id.removeprefix(prefix)) if elem_id and elem_id.startswith(prefix) else None


class EstimateLine:
    """The line, made inside the host's current Blocks context.

    Args:
        tab: "txt2img" or "img2img", part of the element id.
        files: the weight files on offer.
        controls: field name -> its control; may still be filled until `connect`.
        of_request: attribute of the request -> the web UI's control, for those that are known.
    """

    def __init__(self, tab: str, files: ModelFiles, controls: Mapping[str, Any], of_request: Mapping[str, Any]) -> None:
        self._files = files
        self._controls = controls
        self._of_request = dict(of_request)
        # Called when a page opens; by then the host may have put the user's saved defaults into the controls.
        self._line = gr.HTML(
            lambda: self._tell(*(control.value for control in self._inputs().values())),
            elem_id=f"{tab}_motion_estimate",
        )

    def connect(self) -> None:
        """All controls are there: keep the line up to date."""
        inputs = list(self._inputs().values())
        for control in inputs:
            control.change(self._tell, inputs=inputs, outputs=[self._line], show_progress=False)

    def _inputs(self) -> dict[str, Any]:
        ours = {name: self._controls[name] for name in _FIELDS if name in self._controls}
        return {**ours, **self._of_request}

    def _tell(self, *values: Any) -> str:
        return estimate_text(self._files, dict(zip(self._inputs(), values, strict=True)))


def estimate_text(files: ModelFiles, values: Mapping[str, Any]) -> str:
    """HTML: what the clip takes, or what is wrong with the fields; empty while no module is chosen."""
    if not values["motion_module"]:
        return ""
    try:
        settings = MotionSettings.from_mapping({name: values[name] for name in _FIELDS if name in values})
        family, config = files.inspect(settings.motion_module, settings.module_family)
        plan = WindowPlan.resolve(settings, family.trained_window(config.max_length), config.max_length)
        needs = _needs(files, settings, values)
    except MotionError as error:
        return escape(str(error))
    steps = values.get("steps")
    return escape(str(RunEstimate.of(plan, settings.window_scope, int(steps) if steps else None, needs)))


def _needs(files: ModelFiles, settings: MotionSettings, values: Mapping[str, Any]) -> UNetNeeds | None:
    """None while no model is loaded, or none that clips are made with, or where the size of the frames isn't known."""
    model = getattr(sd_models.model_data, "sd_model", None)
    if model is None or not all(values.get(side) for side in _SIZE):
        return None
    request: dict[str, Any] = {"enable_hr": False, "hr_scale": 2.0, "hr_resize_x": 0, "hr_resize_y": 0}
    request |= {name: values[name] for name in _OF_REQUEST.values() if values.get(name) is not None}
    try:
        host = adapter_for(SimpleNamespace(**request, sd_model=model), settings.num_frames)
        sites = find_sites(host.unet())
    except MotionError:
        return None
    report = files.describe(settings.motion_module, settings.module_family)
    placement = host.placement()
    numbers = 0 if report is None else report.parameters or 0
    return UNetNeeds(
        host.unet_room(),
        sites[0].channels,
        placement.dtype.itemsize,
        sum(weight.nbytes for weight in host.unet().parameters()),
        numbers * placement.storage_dtype.itemsize,
    )
