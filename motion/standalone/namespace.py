"""Makes this process a host: the modules that A1111 calls `modules.*`, and the state behind them.

`install()` puts the files of this package under their A1111 names into `sys.modules`, as the same module objects, and
makes a fresh HostState. Nothing else of the process is changed, and `uninstall()` undoes it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType, ModuleType

from motion.standalone import (
    callback_registry,
    cmd_args,
    extensions,
    extra_networks,
    host_state,
    lora,
    option_defaults,
    script_callbacks,
    script_loading,
)
from motion.standalone.host_state import HostState
from motion.standalone.job_state import State
from motion.standalone.options import Options
from motion.standalone.paths import HostPaths
from motion.standalone.styles import StyleDatabase
from motion.standalone.total_progress import TotalProgress
from motion.standalone.upscalers import builtin_upscalers

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "modules.api.models": "api_models",
        "modules.cmd_args": "cmd_args",
        "modules.devices": "devices",
        "modules.errors": "errors",
        "modules.extensions": "extensions",
        "modules.extra_networks": "extra_networks",
        "modules.generation_parameters_copypaste": "infotext",
        "modules.images": "images",
        "modules.infotext_utils": "infotext",
        "modules.masking": "masking",
        "modules.options": "options",
        "modules.paths": "paths",
        "modules.paths_internal": "paths",
        "modules.processing": "processing",
        "modules.prompt_parser": "text.prompt_parser",
        "modules.rng": "rng",
        "modules.script_callbacks": "script_callbacks",
        "modules.script_loading": "script_loading",
        "modules.scripts": "scripts",
        "modules.sd_models": "sd_models",
        "modules.sd_samplers": "samplers",
        "modules.sd_samplers_cfg_denoiser": "samplers.cfg_denoiser",
        "modules.sd_samplers_common": "samplers.common",
        "modules.sd_samplers_kdiffusion": "samplers.kdiffusion",
        "modules.sd_samplers_timesteps": "samplers.timesteps",
        "modules.sd_schedulers": "samplers.schedulers",
        "modules.shared": "shared",
        "modules.shared_options": "option_defaults",
        "modules.shared_state": "job_state",
        "modules.styles": "styles",
        "modules.ui": "ui_common",
        "modules.ui_common": "ui_common",
        "modules.ui_components": "ui_components",
        "modules.upscaler": "upscalers",
    }
)
"""A1111's name -> file of this package."""


def install(arguments: Sequence[str] = (), extension_folders: Sequence[str | os.PathLike[str]] = ()) -> HostState:
    """Make this process a host, or return the state of the host that it is.

    Args:
        arguments: command line, such as ["--data-dir", "here"]; see cmd_args.
        extension_folders: extensions to load beside those in <data-dir>/extensions.

    Raises:
        SystemExit: a flag is unknown.
    """
    if host_state.is_running():
        return host_state.current()
    state = _create_state(arguments, [os.path.abspath(folder) for folder in extension_folders])
    host_state.replace_current(state)
    try:
        _alias_modules()
        extra_networks.register_extra_network(lora.ExtraNetworkLora())
    except BaseException:
        uninstall()
        raise
    return state


def uninstall() -> None:
    """Tell the scripts, take the aliases out of `sys.modules` and drop the state; does nothing where no host runs."""
    if host_state.is_running():
        script_callbacks.script_unloaded_callback()
    host_state.replace_current(None)
    for name in _all_names():
        module = sys.modules.get(name)
        if module is not None and (name == "modules" or _is_ours(module)):
            del sys.modules[name]


@contextmanager
def installed(
    arguments: Sequence[str] = (), extension_folders: Sequence[str | os.PathLike[str]] = ()
) -> Iterator[HostState]:
    """A host for the length of a `with` block; inside another one, that one."""
    if host_state.is_running():
        yield host_state.current()
        return
    state = install(arguments, extension_folders)
    try:
        yield state
    finally:
        uninstall()


def _create_state(arguments: Sequence[str], folders: Sequence[str]) -> HostState:
    parser = cmd_args.create_parser()
    early, _ = parser.parse_known_args(list(arguments))
    paths = HostPaths.under(early.data_dir, early.models_dir)
    known = extensions.find_extensions(folders, "" if early.disable_all_extensions else paths.extensions_dir)
    script_loading.preload_extensions([extension.path for extension in known], parser)
    cmd_opts = parser.parse_args(list(arguments))
    cmd_opts.ui_settings_file = cmd_opts.ui_settings_file or os.path.join(paths.data_path, "config.json")
    cmd_opts.styles_file = cmd_opts.styles_file or os.path.join(paths.data_path, "styles.csv")
    cmd_opts.lora_dir = cmd_opts.lora_dir or os.path.join(paths.models_path, "Lora")
    templates = option_defaults.create_options(paths)
    opts = Options(templates)
    opts.load(cmd_opts.ui_settings_file)
    for extension in known:
        extension.enabled = extension.path in folders or extension.name not in opts.disabled_extensions
    return HostState(
        cmd_opts=cmd_opts,
        parser=parser,
        paths=paths,
        opts=opts,
        state=State(),
        total_tqdm=TotalProgress(),
        prompt_styles=StyleDatabase(cmd_opts.styles_file),
        sd_upscalers=builtin_upscalers(),
        options_templates=templates,
        callback_map=callback_registry.empty_callback_map(),
        script_basedir=paths.script_path,
        extensions=known,
    )


def _all_names() -> list[str]:
    """All names under `modules`, itself included; parents first."""
    parents = {name.rpartition(".")[0] for name in ALIASES}
    return sorted(parents) + [name for name in ALIASES if name not in parents]


def _is_ours(module: ModuleType) -> bool:
    return module.__name__.startswith("motion.standalone") or module.__dict__.get("_motion_alias", False)


def _alias_modules() -> None:
    """Put real modules under the API's names; attributes are set too, for `import modules.shared` and `modules.x`."""
    taken = sys.modules.get("modules")
    if taken is not None and not _is_ours(taken):
        raise RuntimeError(f"Expected no package named `modules`, found {taken!r}. Run the embedded host on its own.")
    for name in _all_names():
        if name in ALIASES:
            module = importlib.import_module(f"motion.standalone.{ALIASES[name]}")
        else:
            module = ModuleType(name, "The web UI's API, served by motion.standalone.")
            module.__dict__.update(__path__=[], _motion_alias=True)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
