"""Scripts of extensions: `modules.scripts`."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any, NamedTuple

from motion.standalone import errors, extensions, host_state, script_callbacks, script_loading
from motion.standalone.script_base import (
    AlwaysVisible,
    MaskBlendArgs,
    OnComponent,
    PostprocessBatchListArgs,
    PostprocessImageArgs,
    PostProcessMaskOverlayArgs,
    PostSampleArgs,
    Script,
    ScriptBuiltinUI,
    ScriptFile,
)
from motion.standalone.script_runner import ScriptRunner

__all__ = [
    "AlwaysVisible",
    "MaskBlendArgs",
    "OnComponent",
    "PostProcessMaskOverlayArgs",
    "PostSampleArgs",
    "PostprocessBatchListArgs",
    "PostprocessImageArgs",
    "Script",
    "ScriptBuiltinUI",
    "ScriptFile",
    "ScriptRunner",
]

scripts_txt2img: ScriptRunner | None
scripts_img2img: ScriptRunner | None
scripts_current: ScriptRunner | None
scripts_data: list[ScriptClassData]
current_basedir: str


class ScriptClassData(NamedTuple):
    """A script class and where it was found."""

    script_class: type[Script]
    path: str
    basedir: str
    module: ModuleType


def basedir() -> str:
    """Folder of the extension whose script loads now; the host's folder at other times."""
    return host_state.current().script_basedir


def list_scripts(scriptdirname: str, extension: str, *, include_extensions: bool = True) -> list[ScriptFile]:
    """Files of all active extensions under `scriptdirname` that end in `extension`, in loading order."""
    if not include_extensions:
        return []
    return [file for found in extensions.active() for file in found.list_files(scriptdirname, extension)]


def load_scripts() -> None:
    """Load scripts/*.py of all active extensions and make new runners; callbacks of earlier loads are forgotten."""
    host = host_state.current()
    host.script_classes.clear()
    script_callbacks.clear_callbacks()
    for file in list_scripts("scripts", ".py"):
        try:
            module = script_loading.load_script(file.path, file.basedir)
        except Exception:
            errors.report(f"Error loading script: {file.filename}", exc_info=True)
            continue
        classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Script)]
        host.script_classes += [ScriptClassData(found, file.path, file.basedir, module) for found in classes]
    host.scripts_txt2img = ScriptRunner()
    host.scripts_img2img = ScriptRunner()


reload_scripts = load_scripts


def build_runners() -> tuple[ScriptRunner, ScriptRunner]:
    """Make the controls of both tabs outside a page, for jobs that come without one.

    Returns:
        The runners of txt2img and img2img; `runner.inputs` hold each argument's default in `.value`.
    """
    import gradio as gr

    host = host_state.current()
    built = []
    for runner, is_img2img in ((host.scripts_txt2img, False), (host.scripts_img2img, True)):
        if runner is None:
            raise RuntimeError("No scripts are loaded. Call load_scripts() first.")
        with gr.Blocks(analytics_enabled=False):
            runner.build(is_img2img)
        built.append(runner)
    return built[0], built[1]


def default_arguments(runner: ScriptRunner) -> list[Any]:
    """`p.script_args` of a job that sets nothing; place 0 is the script chosen in the list, by index."""
    return [0, *(getattr(control, "value", None) for control in runner.inputs[1:])]


host_state.forward(
    __name__,
    {
        "scripts_txt2img": "scripts_txt2img",
        "scripts_img2img": "scripts_img2img",
        "scripts_current": "scripts_current",
        "scripts_data": "script_classes",
        "current_basedir": "script_basedir",
    },
)
