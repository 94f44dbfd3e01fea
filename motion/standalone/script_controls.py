"""The scripts of one tab and their controls; part of `modules.scripts`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from motion.standalone import errors, host_state, script_loading
from motion.standalone.api_models import ScriptArg, ScriptInfo
from motion.standalone.script_base import AlwaysVisible, OnComponent, Script

ComponentCallbacks = dict[str, list[tuple[Callable[[OnComponent], Any], Script]]]


class ScriptControls:
    """The scripts of one tab and the controls they make.

    Attributes:
        scripts: all scripts of the tab.
        alwayson_scripts: those that take part in every job.
        selectable_scripts: those of the list.
        titles: titles of the selectable scripts.
        title_map: title in lower case -> script.
        infotext_fields: what infotext fills in.
        paste_field_names: infotext keys that "send to" buttons carry.
        inputs: the list of scripts (or None), then all scripts' controls: the order of `p.script_args`.
    """

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.selectable_scripts: list[Script] = []
        self.alwayson_scripts: list[Script] = []
        self.titles: list[str] = []
        self.title_map: dict[str, Script] = {}
        self.infotext_fields: list[Any] = []
        self.paste_field_names: list[str] = []
        self.inputs: list[Any] = [None]
        self.on_before_component_elem_id: ComponentCallbacks = {}
        self.on_after_component_elem_id: ComponentCallbacks = {}

    def initialize_scripts(self, is_img2img: bool) -> None:
        """Make one object of each script class for this tab."""
        for scripts in (self.scripts, self.alwayson_scripts, self.selectable_scripts):
            scripts.clear()
        for found in host_state.current().script_classes:
            try:
                script = found.script_class()
            except Exception:
                errors.report(f"Error: failed to initialize script {found.module}", exc_info=True)
                continue
            script.filename = found.path
            script.is_txt2img, script.is_img2img = not is_img2img, is_img2img
            script.tabname = "img2img" if is_img2img else "txt2img"
            visibility = script.show(is_img2img)
            script.alwayson = visibility is AlwaysVisible
            if visibility:
                self.scripts.append(script)
                (self.alwayson_scripts if script.alwayson else self.selectable_scripts).append(script)
        self.apply_on_before_component_callbacks()

    def apply_on_before_component_callbacks(self) -> None:
        """Take over what scripts asked for with `on_before_component` and `on_after_component`."""
        for script in self.scripts:
            for wanted, known in (
                (script.on_before_component_elem_id, self.on_before_component_elem_id),
                (script.on_after_component_elem_id, self.on_after_component_elem_id),
            ):
                for elem_id, callback in wanted or []:
                    known.setdefault(elem_id, []).append((callback, script))
                if wanted:
                    wanted.clear()

    def prepare_ui(self) -> None:
        """Forget the controls of an earlier page."""
        self.inputs = [None]

    def create_script_ui(self, script: Script) -> None:
        """Make a script's controls and note which arguments are its own."""
        script.args_from = script.args_to = len(self.inputs)
        try:
            self.create_script_ui_inner(script)
        except Exception:
            errors.report(f"Error creating UI for {script.name}: ", exc_info=True)

    def create_script_ui_inner(self, script: Script) -> None:
        """The same; an exception of the script comes through."""
        controls = script.ui(script.is_img2img)
        script.controls = controls
        if controls is None:
            return
        script.name = (_title(script) or str(script.filename)).lower()
        for control in controls:
            control.custom_script_source = os.path.basename(script.filename or "")
        script.api_info = ScriptInfo(
            name=script.name,
            is_img2img=script.is_img2img,
            is_alwayson=script.alwayson,
            args=[_describe(control) for control in controls],
        )
        self.infotext_fields += script.infotext_fields or []
        self.paste_field_names += script.paste_field_names or []
        self.inputs += controls
        script.args_to = len(self.inputs)

    def setup_ui_for_section(self, section: str | None, scriptlist: Sequence[Script] | None = None) -> None:
        """Make the controls of the scripts that want to be in `section`, or of the given ones."""
        for script in self.alwayson_scripts if scriptlist is None else scriptlist:
            if script.alwayson and script.section != section:
                continue
            if not script.create_group:
                self.create_script_ui(script)
                continue
            with gr.Group(visible=script.alwayson) as group:
                self.create_script_ui(script)
            script.group = group

    def setup_ui(self) -> list[Any]:
        """Make all scripts' controls and the list to choose one from; returns `inputs`."""
        self.title_map = {(_title(script) or str(script.filename)).lower(): script for script in self.scripts}
        self.titles = [_title(script) or f"{script.filename} [error]" for script in self.selectable_scripts]
        self.setup_ui_for_section(None)
        choices = ["None", *self.titles]
        dropdown = gr.Dropdown(label="Script", elem_id="script_list", choices=choices, value="None", type="index")
        self.inputs[0] = dropdown
        self.setup_ui_for_section(None, self.selectable_scripts)

        def select(index: int | None) -> list[Any]:
            return [gr.update(visible=place == index) for place in range(1, len(choices))]

        groups = [script.group for script in self.selectable_scripts]
        if groups and all(group is not None for group in groups):
            dropdown.change(fn=select, inputs=[dropdown], outputs=groups)
        self.infotext_fields.append((dropdown, lambda params: gr.update(value=params.get("Script", "None"))))
        self.apply_on_before_component_callbacks()
        return self.inputs

    def script(self, title: str) -> Script | None:
        """The script of a title, in any case."""
        return self.title_map.get(title.lower())

    def set_named_arg(self, args: Any, script_name: str, arg_elem_id: str, value: Any, fuzzy: bool = False) -> Any:
        """`args` (list: changed; tuple: a copy) with one argument of one script replaced.

        Args:
            args: `p.script_args`.
            script_name: the script's name, in lower case.
            arg_elem_id: HTML id of the control, or a part of it if `fuzzy`.
            value: the new value.
            fuzzy: see `arg_elem_id`.

        Raises:
            RuntimeError: no such script or control, or `args` is neither list nor tuple.
        """
        script = next((found for found in self.scripts if found.name == script_name), None)
        if script is None or script.args_from is None:
            raise RuntimeError(f"script {script_name} not found")
        for place, control in enumerate(script.controls or [], start=script.args_from):
            if arg_elem_id == control.elem_id or (fuzzy and arg_elem_id in control.elem_id):
                if isinstance(args, tuple):
                    return (*args[:place], value, *args[place + 1 :])
                if not isinstance(args, list):
                    raise RuntimeError(f"args is not a list or tuple, but {type(args)}")
                args[place] = value
                return args
        raise RuntimeError(f"arg_elem_id {arg_elem_id} not found in script {script_name}")

    def reload_sources(self, cache: dict[str, Any]) -> None:
        """Read scripts' files again; controls stay. `cache` is path -> module already read."""
        for place, script in enumerate(self.scripts):
            filename = str(script.filename)
            if filename not in cache:
                cache[filename] = script_loading.load_script(filename, os.path.dirname(os.path.dirname(filename)))
            for value in vars(cache[filename]).values():
                if isinstance(value, type) and issubclass(value, Script) and value.__name__ == type(script).__name__:
                    fresh = value()
                    fresh.filename, fresh.args_from, fresh.args_to = filename, script.args_from, script.args_to
                    self.scripts[place] = fresh


def _title(script: Script) -> str | None:
    try:
        return script.title()
    except Exception:
        errors.report(f"Error calling: {script.filename}/title", exc_info=True)
        return None


def _describe(control: Any) -> ScriptArg:
    """What the API tells about one control."""
    choices = getattr(control, "choices", None)
    fields = {name: getattr(control, name, None) for name in ("value", "minimum", "maximum", "step")}
    return ScriptArg(
        label=control.label or "",
        choices=None if choices is None else [item[0] if isinstance(item, tuple) else item for item in choices],
        **{name: value for name, value in fields.items() if value is not None and not callable(value)},
    )
