"""The state of one running host, and the modules that show it as variables.

The web UI's API *is* module-level state: `shared.opts`, `shared.state`, `scripts.scripts_txt2img`,
`script_callbacks.callback_map`. An extension must find it there. All of it lives in one `HostState`, made by
`namespace.install()` and gone with `namespace.uninstall()`; the modules of the API only forward names to it. The slot
`_current` below is the one mutable variable of this package.
"""

from __future__ import annotations

import argparse
import operator
import sys
import threading
import types
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motion.models.precision import Precision
    from motion.standalone.extensions import Extension
    from motion.standalone.extra_networks import ExtraNetwork
    from motion.standalone.job_state import State
    from motion.standalone.options import OptionInfo, Options
    from motion.standalone.paths import HostPaths
    from motion.standalone.script_callbacks import ScriptCallback
    from motion.standalone.script_runner import ScriptRunner
    from motion.standalone.scripts import ScriptClassData
    from motion.standalone.styles import StyleDatabase
    from motion.standalone.total_progress import TotalProgress
    from motion.standalone.upscalers import UpscalerData


@dataclass
class HostState:
    """Everything that a running host and its extensions change.

    Attributes:
        cmd_opts: parsed command line, flags of extensions' preload.py included.
        parser: the parser it came from.
        paths: folders.
        opts: settings.
        state: the running job.
        total_tqdm: progress over all sampling passes of a job.
        prompt_styles: named prompt fragments.
        sd_upscalers: image upscalers of the hires pass and of img2img.
        options_templates: option name -> its description, as the settings page began.
        callback_map: "callbacks_<category>" -> registered callbacks.
        script_classes: script classes found by the loader.
        script_basedir: extension whose script loads now.
        loaded_scripts: path -> module of each loaded script.
        scripts_txt2img: runner of the txt2img tab.
        scripts_img2img: runner of the img2img tab.
        scripts_current: runner of the tab whose UI is being built.
        extensions: known extensions, in loading order.
        extra_network_registry: kind in `<kind:name:weight>` -> handler.
        extra_network_aliases: other kinds for the same handlers.
        paste_fields: tab -> what infotext fills in.
        param_bindings: buttons that send parameters to a tab.
        cond_caches: last conditionings by kind, so that the same prompt isn't encoded twice in a row.
        exception_records: the last exceptions that were swallowed, oldest first.
        sd_model_data: the loaded model; `motion.standalone.sd_models` fills it.
        job_lock: held while a job runs; jobs of the page, the API and `Pipeline` wait for one another.
        precision: device and number formats; `motion.standalone.devices` chooses them on first use.
        demo: the gradio page.
    """

    cmd_opts: argparse.Namespace
    parser: argparse.ArgumentParser
    paths: HostPaths
    opts: Options
    state: State
    total_tqdm: TotalProgress
    prompt_styles: StyleDatabase
    sd_upscalers: list[UpscalerData]
    options_templates: dict[str, OptionInfo]
    callback_map: dict[str, list[ScriptCallback]]
    script_basedir: str
    script_classes: list[ScriptClassData] = field(default_factory=list)
    loaded_scripts: dict[str, types.ModuleType] = field(default_factory=dict)
    scripts_txt2img: ScriptRunner | None = None
    scripts_img2img: ScriptRunner | None = None
    scripts_current: ScriptRunner | None = None
    extensions: list[Extension] = field(default_factory=list)
    extra_network_registry: dict[str, ExtraNetwork] = field(default_factory=dict)
    extra_network_aliases: dict[str, ExtraNetwork] = field(default_factory=dict)
    paste_fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    param_bindings: list[Any] = field(default_factory=list)
    cond_caches: dict[str, list[Any]] = field(default_factory=dict)
    exception_records: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=5))
    sd_model_data: Any = None
    job_lock: threading.Lock = field(default_factory=threading.Lock)
    precision: Precision | None = None
    demo: Any = None


_current: HostState | None = None


def current() -> HostState:
    """State of the host that runs in this process.

    Raises:
        RuntimeError: there is none.
    """
    if _current is None:
        raise RuntimeError("No host runs in this process. Call motion.standalone.namespace.install() first.")
    return _current


def is_running() -> bool:
    """Whether `current()` has an answer."""
    return _current is not None


def replace_current(state: HostState | None) -> HostState | None:
    """Make `state` the current one and return the one before; for `namespace` only."""
    global _current
    previous, _current = _current, state
    return previous


class HostModule(types.ModuleType):
    """A module some of whose names are read from, and written to, the current HostState."""

    def __getattr__(self, name: str) -> Any:
        source = self.__dict__.get("_host_fields", {}).get(name)
        if source is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if not is_running():
            raise AttributeError(f"{self.__name__}.{name} exists only while a host runs; see namespace.install()")
        return source() if callable(source) else operator.attrgetter(source)(current())

    def __setattr__(self, name: str, value: Any) -> None:
        source = self.__dict__.get("_host_fields", {}).get(name)
        if source is None:
            super().__setattr__(name, value)
        elif isinstance(source, str) and "." not in source:
            setattr(current(), source, value)
        else:
            raise AttributeError(f"{self.__name__}.{name} can't be assigned")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__dict__.get("_host_fields", {})})


def forward(module_name: str, fields: dict[str, Any]) -> None:
    """Show parts of the current HostState as variables of a module; called at the end of that module.

    Args:
        module_name: the caller's `__name__`.
        fields: variable -> attribute path in HostState, or a function that returns the value.
    """
    module = sys.modules[module_name]
    module.__dict__["_host_fields"] = dict(fields)
    module.__class__ = HostModule
