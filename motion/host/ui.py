"""The accordion, built from the settings' field table."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion, ToolButton

from motion.host.module_files import module_names
from motion.settings import FieldSpec, MotionSettings, field_default, field_specs

_ROWS = (("motion_module",), ("num_frames", "fps"), ("formats", "loop_count"), ("motion_scale", "seed_behaviour"))


def build_controls(tab: str) -> dict[str, Any]:
    """Field name -> component, in field order, made inside the host's current Blocks context.

    Args:
        tab: "txt2img" or "img2img", part of the element ids.
    """
    specs = field_specs()
    controls: dict[str, Any] = {}
    with InputAccordion(False, label=specs["enabled"].label, elem_id=f"{tab}_motion") as enabled:
        controls["enabled"] = enabled
        for row in _ROWS:
            with gr.Row():
                for name in row:
                    controls[name] = _control(name, specs[name], f"{tab}_motion_{name}")
                if row == ("motion_module",):
                    _refresh_button(controls["motion_module"], f"{tab}_motion_refresh")
    return {name: controls[name] for name in specs}


def infotext_fields(controls: dict[str, Any]) -> list[tuple[Any, Any]]:
    """(component, infotext key or reader) pairs, through which the host restores the accordion from an infotext."""
    return [(control, _reader(name)) for name, control in controls.items()]


def _reader(name: str) -> Any:
    key = field_specs()[name].infotext

    def read(parameters: dict[str, Any]) -> Any:
        if key not in parameters:
            return False if name == "enabled" and "Prompt" in parameters else None
        return _shown(getattr(MotionSettings.from_infotext({key: parameters[key]}), name))

    return read


def _shown(value: Any) -> Any:
    """A settings value as its component shows it."""
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _control(name: str, spec: FieldSpec, elem_id: str) -> Any:
    default = _shown(field_default(name))
    common = {"label": spec.label, "info": spec.info, "elem_id": elem_id, "interactive": True}
    if spec.control == "file":
        names = module_names()
        return gr.Dropdown(choices=names, value=names[0] if names else None, **common)
    if spec.control == "choices":
        return gr.CheckboxGroup(choices=list(spec.choices), value=default, **common)
    if spec.control == "choice":
        return gr.Radio(choices=list(spec.choices), value=default, **common)
    if spec.control == "slider":
        return gr.Slider(minimum=spec.minimum, maximum=spec.maximum, step=spec.step, value=default, **common)
    if spec.control == "integer":
        return gr.Number(value=default, precision=0, **common)
    return gr.Textbox(value=default, max_lines=1, **common)


def _refresh_button(dropdown: Any, elem_id: str) -> None:
    button = ToolButton(value="🔄", elem_id=elem_id, tooltip="Look for motion modules again")
    button.click(lambda: gr.update(choices=module_names()), inputs=[], outputs=[dropdown], show_progress=False)
