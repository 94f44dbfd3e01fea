"""Infotext pasted into a page: `modules.infotext_utils`."""

from __future__ import annotations

import base64
import io
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from motion.standalone import errors, host_state, images, script_callbacks, shared
from motion.standalone.infotext_parser import (
    create_override_settings_dict,
    get_override_settings,
    parse_generation_parameters,
    quote,
    unquote,
)

__all__ = [
    "ParamBinding",
    "PasteField",
    "connect_paste",
    "create_override_settings_dict",
    "get_override_settings",
    "parse_generation_parameters",
    "quote",
    "unquote",
]

logger = logging.getLogger(__name__)

paste_fields: dict[str, dict[str, Any]]
registered_param_bindings: list[ParamBinding]


class PasteField(tuple[Any, Any]):
    """(component, infotext key or function of the parsed infotext)."""

    component: Any
    label: str | None
    function: Callable[[dict[str, Any]], Any] | None
    api: str | None

    def __new__(cls, component: Any, target: Any, *, api: str | None = None) -> PasteField:
        """Make the pair; `api` names the field of an API request that it belongs to."""
        made = super().__new__(cls, (component, target))
        made.component = component
        made.label = target if isinstance(target, str) else None
        made.function = target if callable(target) else None
        made.api = api
        return made


@dataclass(eq=False)
class ParamBinding:
    """A button that sends an infotext or a picture to a tab."""

    paste_button: Any
    tabname: str
    source_text_component: Any = None
    source_image_component: Any = None
    source_tabname: str | None = None
    override_settings_component: Any = None
    paste_field_names: list[str] = field(default_factory=list)


def reset() -> None:
    """Forget the fields and buttons of an earlier page."""
    host_state.current().paste_fields.clear()
    host_state.current().param_bindings.clear()


def add_paste_fields(
    tabname: str, init_img: Any, fields: list[Any] | None, override_settings_component: Any = None
) -> None:
    """Tell which components of a tab infotext fills in."""
    for place, entry in enumerate(fields or []):
        if fields is not None and not isinstance(entry, PasteField):
            fields[place] = PasteField(*entry)
    host_state.current().paste_fields[tabname] = {
        "init_img": init_img,
        "fields": fields,
        "override_settings_component": override_settings_component,
    }


def register_paste_params_button(binding: ParamBinding) -> None:
    """Remember a button until the page is complete."""
    host_state.current().param_bindings.append(binding)


def connect_paste_params_buttons() -> None:
    """Connect the remembered buttons with the fields of their tabs."""
    host = host_state.current()
    for binding in host.param_bindings:
        target = host.paste_fields[binding.tabname]
        if binding.source_image_component is not None and target["init_img"] is not None:
            binding.paste_button.click(
                lambda image: image, inputs=[binding.source_image_component], outputs=[target["init_img"]]
            )
        if binding.source_text_component is not None and target["fields"] is not None:
            overrides = binding.override_settings_component or target["override_settings_component"]
            connect_paste(
                binding.paste_button, target["fields"], binding.source_text_component, overrides, binding.tabname
            )


def connect_paste(
    button: Any, paste_fields: Sequence[Any], input_comp: Any, override_settings_component: Any, tabname: str
) -> None:
    """When `button` is clicked, fill `paste_fields` from the infotext in `input_comp`."""
    fields = list(paste_fields)
    if override_settings_component is not None:
        handled = {key for _, key in fields if isinstance(key, str)}
        fields.append((override_settings_component, lambda params: _override_update(params, handled)))
    button.click(
        fn=lambda text: paste(text, fields),
        inputs=[input_comp],
        outputs=[entry[0] for entry in fields],
        show_progress="hidden",
    )


def paste(text: str, fields: Sequence[Any]) -> Any:
    """One gradio update for each field, from an infotext; from the last job's where it is empty."""
    if not text and not shared.cmd_opts.no_prompt_history:
        text = _last_infotext()
    params = parse_generation_parameters(text)
    script_callbacks.infotext_pasted_callback(text, params)
    updates = [_field_update(component, key, params) for component, key in fields]
    return updates if len(updates) != 1 else updates[0]


def _last_infotext() -> str:
    try:
        with open(os.path.join(shared.data_path, "params.txt"), encoding="utf8") as file:
            return file.read()
    except OSError:
        return ""


def _field_update(component: Any, key: Any, params: dict[str, Any]) -> Any:
    try:
        value = key(params) if callable(key) else params.get(key)
    except Exception:
        errors.report(f"Error executing {key}", exc_info=True)
        value = None
    if value is None:
        return gr.update()
    if isinstance(value, dict) and value.get("__type__") == "update":
        return value
    kind: type[Any] = (
        str if component.value is None else type(component.value)
    )  # an empty Textbox of Gradio 4 holds None
    try:
        if kind is bool:
            return gr.update(value=str(value) != "False")
        return gr.update(value=float(value) if kind is int else kind(value))
    except (TypeError, ValueError):
        logger.warning("Expected %s for %s, got %r; it was not pasted", kind.__name__, key, value)
        return gr.update()


def _override_update(params: Mapping[str, Any], handled: Iterable[str]) -> Any:
    texts = [f"{key}: {value}" for key, _, value in get_override_settings(params, skip_fields=handled)]
    return gr.update(value=texts, choices=texts, visible=bool(texts))


def image_from_url_text(filedata: Any) -> Any:
    """A picture from what a page sends: a base64 text, or a list whose first entry is one; None for nothing."""
    if isinstance(filedata, list):
        filedata = filedata[0] if filedata else None
    if filedata is None:
        return None
    text = str(filedata).rpartition("base64,")[2]
    return images.read(io.BytesIO(base64.b64decode(text)))


host_state.forward(__name__, {"paste_fields": "paste_fields", "registered_param_bindings": "param_bindings"})
