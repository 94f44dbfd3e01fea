"""Folders of the host: `modules.paths` and `modules.paths_internal`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from motion.standalone import host_state

cwd: str
data_path: str
script_path: str
models_path: str
extensions_dir: str
extensions_builtin_dir: str
default_output_dir: str


@dataclass(frozen=True)
class HostPaths:
    """Where one host reads and writes; all absolute.

    Attributes:
        data_path: base of everything that is the user's.
        models_path: checkpoints and other weights; `data_path`/models unless given.
    """

    data_path: str
    models_path: str

    @classmethod
    def under(cls, data_dir: str | os.PathLike[str], models_dir: str | os.PathLike[str] | None = None) -> HostPaths:
        """Folders under `data_dir`; nothing is created."""
        data = Path(data_dir).absolute()
        models = Path(models_dir).absolute() if models_dir else data / "models"
        return cls(str(data), str(models))

    @property
    def script_path(self) -> str:
        """The embedded host has no program folder, so this is the data folder."""
        return self.data_path

    @property
    def cwd(self) -> str:
        """The process' working folder."""
        return os.getcwd()

    @property
    def extensions_dir(self) -> str:
        """Where users put extensions."""
        return os.path.join(self.data_path, "extensions")

    @property
    def extensions_builtin_dir(self) -> str:
        """No extension is built in; the name is part of the API."""
        return os.path.join(self.data_path, "extensions-builtin")

    @property
    def default_output_dir(self) -> str:
        """Parent of the folders that images go to."""
        return os.path.join(self.data_path, "outputs")


host_state.forward(
    __name__,
    {
        name: f"paths.{name}"
        for name in (
            "cwd",
            "data_path",
            "script_path",
            "models_path",
            "extensions_dir",
            "extensions_builtin_dir",
            "default_output_dir",
        )
    },
)
