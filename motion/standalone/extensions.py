"""Folders that hold extensions: `modules.extensions`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass

from motion.standalone import host_state
from motion.standalone.script_base import ScriptFile

logger = logging.getLogger(__name__)

extensions: list[Extension]


@dataclass
class Extension:
    """One extension.

    Attributes:
        name: name of its folder.
        path: its folder, absolute.
        enabled: whether its scripts are loaded.
        is_builtin: no extension is.
    """

    name: str
    path: str
    enabled: bool = True
    is_builtin: bool = False

    @property
    def canonical_name(self) -> str:
        """Name under which other extensions refer to it."""
        return self.name.lower()

    def list_files(self, subdir: str, extension: str) -> list[ScriptFile]:
        """Files of its folder `subdir` that end in `extension` (".py"), sorted by name."""
        folder = os.path.join(self.path, subdir)
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in names if os.path.splitext(name)[1].lower() == extension]
        return [ScriptFile(self.path, os.path.basename(path), path) for path in paths if os.path.isfile(path)]


def active() -> list[Extension]:
    """Extensions that are on, in loading order."""
    return [extension for extension in host_state.current().extensions if extension.enabled]


def find_extensions(folders: Iterable[str], extensions_dir: str, disabled: Iterable[str] = ()) -> list[Extension]:
    """The given extension folders, then the folders inside `extensions_dir`, each once."""
    paths = [os.path.abspath(folder) for folder in folders]
    if os.path.isdir(extensions_dir):
        inside = (os.path.join(extensions_dir, name) for name in sorted(os.listdir(extensions_dir)))
        paths += [os.path.abspath(path) for path in inside if os.path.isdir(path)]
    off = set(disabled)
    unique = dict.fromkeys(paths)
    return [Extension(os.path.basename(path), path, os.path.basename(path) not in off) for path in unique]


def find_extension(filename: str) -> Extension | None:
    """The extension that a file belongs to."""
    path = os.path.realpath(filename)
    for extension in host_state.current().extensions:
        if path.startswith(os.path.realpath(extension.path) + os.sep):
            return extension
    return None


host_state.forward(__name__, {"extensions": "extensions"})
