"""Loading of extensions' files: `modules.script_loading`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable
from types import ModuleType

from motion.standalone import errors, host_state

loaded_scripts: dict[str, ModuleType]


def load_module(path: str) -> ModuleType:
    """Run a Python file as a module named like the file, and remember it."""
    spec = importlib.util.spec_from_file_location(os.path.basename(path), path)
    if spec is None or spec.loader is None:
        raise ImportError(f"Expected a Python file, got {path}. Give it the ending .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if host_state.is_running():
        host_state.current().loaded_scripts[path] = module
    return module


def load_script(path: str, folder: str) -> ModuleType:
    """Run a script of the extension in `folder`, which is first on sys.path meanwhile, and only then."""
    host, search_path = host_state.current(), sys.path
    sys.path, host.script_basedir, outside = [folder, *search_path], folder, host.script_basedir
    try:
        return load_module(path)
    finally:
        sys.path, host.script_basedir = search_path, outside


def preload_extensions(folders: Iterable[str], parser: argparse.ArgumentParser) -> None:
    """Let the preload.py of each extension folder add its flags to `parser`."""
    for folder in folders:
        path = os.path.join(folder, "preload.py")
        if not os.path.isfile(path):
            continue
        try:
            module = load_module(path)
            if hasattr(module, "preload"):
                module.preload(parser)
        except Exception:
            errors.report(f"Error running preload() for {path}", exc_info=True)


host_state.forward(__name__, {"loaded_scripts": "loaded_scripts"})
