"""The accordion, built from the settings' field table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion, ToolButton

from motion.checkpoints.inspection import Inspection, describe
from motion.checkpoints.motion_families import MOTION_FAMILIES
from motion.checkpoints.registry import find_custom_formats
from motion.errors import MotionError
from motion.fields import FieldSpec
from motion.host.module_files import ModelFiles
from motion.host.schedule_panel import add_schedule_panel
from motion.settings import MotionSettings, field_default, field_specs

_ROWS = (
    ("motion_module",),
    ("num_frames", "fps"),
    ("formats", "loop_count"),
    ("motion_scale", "motion_scale_frames"),
    ("motion_start", "motion_end"),
)
_WINDOW_ROWS = (
    ("context_length", "context_overlap", "context_stride"),
    ("closed_loop", "window_scope"),
    ("context_schedule", "fuse_method"),
)
_TRAVEL_ROWS = (("prompt_interpolation",),)
_NOISE_ROWS = (
    ("seed_behaviour",),
    ("frame_seeds",),
    ("freeinit_iterations", "freeinit_coarse_to_fine"),
    ("freeinit_filter", "freeinit_order"),
    ("freeinit_d_s", "freeinit_d_t"),
)
_LORA_ROWS = (("motion_loras",),)
_ADAPTER_ROWS = (("domain_adapter", "domain_adapter_strength"),)
_OUTPUT_ROWS = (("decode_chunk_size", "resume"),)
_MODULE_ROWS = (("module_family", "beta_schedule"),)
_AUTO = str(field_default("module_family"))


def build_controls(tab: str, files: ModelFiles, prompts: Sequence[Any] = ()) -> dict[str, Any]:
    """Field name -> component, in field order, made inside the host's current Blocks context.

    Args:
        tab: "txt2img" or "img2img", part of the element ids.
        files: the weight files to offer.
        prompts: the tab's boxes for prompt and negative prompt, where they are known.
    """
    specs = field_specs()
    controls: dict[str, Any] = {}

    def add_rows(rows: tuple[tuple[str, ...], ...]) -> None:
        for row in rows:
            with gr.Row():
                for name in row:
                    controls[name] = _control(name, specs[name], f"{tab}_motion_{name}", files)

    with InputAccordion(False, label=specs["enabled"].label, elem_id=f"{tab}_motion") as enabled:
        controls["enabled"] = enabled
        with gr.Row():
            controls["motion_module"] = _control(
                "motion_module", specs["motion_module"], f"{tab}_motion_motion_module", files
            )
            refresh = ToolButton(value="🔄", elem_id=f"{tab}_motion_refresh", tooltip="Look for weight files again")
        status = gr.HTML(lambda: _first_status(files, controls), elem_id=f"{tab}_motion_status")
        add_rows(_ROWS[1:])
        with gr.Accordion("Windows and loop", open=False, elem_id=f"{tab}_motion_windows_group"):
            add_rows(_WINDOW_ROWS)
        with gr.Accordion("Prompt travel", open=False, elem_id=f"{tab}_motion_travel_group"):
            add_rows(_TRAVEL_ROWS)
        add_schedule_panel(
            tab, prompts, *(controls[name] for name in ("num_frames", "closed_loop", "motion_scale_frames"))
        )
        with gr.Accordion("Noise", open=False, elem_id=f"{tab}_motion_noise_group"):
            add_rows(_NOISE_ROWS)
        with gr.Accordion("Motion LoRA and domain adapter", open=False, elem_id=f"{tab}_motion_loras_group"):
            add_rows(_LORA_ROWS)
            added = gr.Dropdown(
                choices=files.names("motion_lora"),
                value=None,
                label="Add a motion LoRA",
                info="Appends its tag to the line above.",
                elem_id=f"{tab}_motion_add_lora",
            )
            add_rows(_ADAPTER_ROWS)
        with gr.Accordion("Output", open=False, elem_id=f"{tab}_motion_output_group"):
            add_rows(_OUTPUT_ROWS)
        with gr.Accordion("Module details", open=False, elem_id=f"{tab}_motion_details_group"):
            add_rows(_MODULE_ROWS)
            unload = gr.Button("Unload the motion module from memory", elem_id=f"{tab}_motion_unload")
    _connect(controls, files, refresh, status, added, unload)
    return {name: controls[name] for name in specs}


def infotext_fields(controls: dict[str, Any]) -> list[tuple[Any, Any]]:
    """(component, infotext key or reader) pairs, through which the host restores the accordion from an infotext."""
    specs = field_specs()
    return [(control, _reader(name)) for name, control in controls.items() if specs[name].infotext]


def _connect(controls: dict[str, Any], files: ModelFiles, refresh: Any, status: Any, added: Any, unload: Any) -> None:
    module, family = controls["motion_module"], controls["module_family"]
    adapter, loras = controls["domain_adapter"], controls["motion_loras"]

    def look_again() -> list[Any]:
        kinds = ("motion_module", "domain_adapter", "motion_lora")
        choices = [files.names(kind) for kind in kinds]  # type: ignore[arg-type]
        choices[1] = ["", *choices[1]]
        return [gr.update(choices=names) for names in (*choices, _families())]

    def tell(name: str | None, chosen: str) -> str:
        return _module_status(files, name, chosen)

    def add_lora(text: str, name: str | None) -> tuple[str, Any]:
        stem = name.rpartition(".")[0].rpartition("/")[2] if name else ""
        return (f"{text} <lora:{stem}:1.0>".strip() if stem else text), gr.update(value=None)

    refresh.click(look_again, inputs=[], outputs=[module, adapter, added, family], show_progress=False)
    for chooser in (module, family):
        chooser.change(tell, inputs=[module, family], outputs=[status], show_progress=False)
    added.input(add_lora, inputs=[loras, added], outputs=[loras, added], show_progress=False)
    unload.click(files.unload, inputs=[], outputs=[])


def _families() -> list[str]:
    """Ids of all families, those of other packages included."""
    return [_AUTO, *MOTION_FAMILIES, *(custom.id for custom in find_custom_formats())]


def _first_status(files: ModelFiles, controls: dict[str, Any]) -> str:
    """What a page shows when it opens; by then the host may have put the user's saved defaults into the controls."""
    family = controls.get("module_family")  # made after the status
    return _module_status(files, controls["motion_module"].value, family.value if family is not None else _AUTO)


def _module_status(files: ModelFiles, name: str | None, family: str | None) -> str:
    """One line on what the chosen file is, and folded below it all that `python -m motion inspect` says; as HTML."""
    try:
        report = files.describe(name or "", family or _AUTO)
    except MotionError as error:
        return _escaped(str(error))
    if report is None:
        return "Choose a motion module."
    facts = _escaped(describe(replace(report, path=name or "")))
    return (
        f"{_escaped(_in_words(report))}<details><summary>About this file</summary>"
        f"<pre style='white-space: pre-wrap'>{facts}</pre></details>"
    )


def _in_words(report: Inspection) -> str:
    if not report.usable:
        return f"This file can't be used: {report.reason}"
    guess = " (a guess by its name; see Module details)" if report.family_is_a_guess else ""
    return (
        f"{report.family_title}{guess}, trained on {report.num_frames_trained} frames, "
        f"up to {report.max_frames} at once, for {report.base} checkpoints. "
        f"Longer clips run in windows of {report.num_frames_trained} frames."
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _reader(name: str) -> Callable[[dict[str, Any]], Any]:
    key, enabled = field_specs()[name].infotext, field_specs()["enabled"].infotext

    def read(parameters: dict[str, Any]) -> Any:
        if key not in parameters:  # a clip's infotext leaves out what is empty; a still's leaves all fields alone
            return _shown(field_default(name)) if enabled in parameters or name == "enabled" else None
        return _shown(getattr(MotionSettings.from_infotext({key: parameters[key]}), name))

    return read


def _shown(value: Any) -> Any:
    """A settings value as its component shows it."""
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _control(name: str, spec: FieldSpec, elem_id: str, files: ModelFiles) -> Any:
    default = _shown(field_default(name))
    common = {"label": spec.label, "info": spec.info, "elem_id": elem_id, "interactive": True}
    if spec.control == "module":
        names = files.names("motion_module")
        return gr.Dropdown(choices=names, value=names[0] if names else None, **common)
    if spec.control == "adapter":
        return gr.Dropdown(choices=["", *files.names("domain_adapter")], value=default, **common)
    if spec.control == "family":
        return gr.Dropdown(choices=_families(), value=default, **common)
    if spec.control == "choices":
        return gr.CheckboxGroup(choices=list(spec.choices), value=default, **common)
    if spec.control == "choice":
        return gr.Radio(choices=list(spec.choices), value=default, **common)
    if spec.control == "slider":
        return gr.Slider(minimum=spec.minimum, maximum=spec.maximum, step=spec.step, value=default, **common)
    if spec.control == "checkbox":
        return gr.Checkbox(value=default, **common)
    if spec.control == "integer":
        return gr.Number(value=default, precision=0, **common)
    return gr.Textbox(value=default, max_lines=1, **common)
