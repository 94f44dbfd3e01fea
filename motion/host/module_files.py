"""Motion module files on disk: where they are, which one a name means, and the one that is kept loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from modules import paths, shared

from motion.checkpoints.motion_file import MotionFamily, inspect_motion_file, load_motion_model
from motion.errors import CheckpointError, SettingsError
from motion.models.motion_module import MotionModel, MotionModuleConfig

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def module_folders() -> list[Path]:
    """Folders that are searched, the first being the one to put files into."""
    chosen = getattr(shared.cmd_opts, "motion_module_dir", None)
    own = [Path(chosen)] if chosen else []
    return [*own, Path(paths.models_path) / "motion", Path(__file__).resolve().parents[2] / "models"]


def module_names() -> list[str]:
    """File names offered in the UI, sorted; a file in a subfolder is named with it."""
    found = {
        str(path.relative_to(folder))
        for folder in module_folders()
        if folder.is_dir()
        for path in _files(folder)
        if path.suffix.lower() in SUFFIXES
    }
    return sorted(found, key=str.lower)


def find_module(name: str) -> Path:
    """The file that `name` (as in the drop-down, without its suffix, or a path) means.

    Raises:
        SettingsError: no name was given.
        CheckpointError: there is no such file.
    """
    if not name or name == "None":
        raise SettingsError(
            "`motion_module` must name a motion module file, got none. "
            f"Put an AnimateDiff module into {module_folders()[0]} and choose it."
        )
    candidates = [Path(name), *(folder / name for folder in module_folders())]
    for path in candidates:
        if path.exists():
            return path
    for folder in module_folders():
        for path in _files(folder) if folder.is_dir() else ():
            if path.stem == name and path.suffix.lower() in SUFFIXES:
                return path
    known = module_names()
    raise CheckpointError(
        name,
        "there is no motion module of this name.",
        f"Choose one of: {', '.join(known)}." if known else f"Put the file into {module_folders()[0]}.",
    )


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass
class LoadedModule:
    """A motion module in memory, with what its file was when it was read."""

    stamp: tuple[str, int, int, torch.dtype]
    model: MotionModel
    family: MotionFamily


class ModuleCache:
    """Keeps the motion module of the last clip, on the CPU, so that the next clip needs no reading."""

    def __init__(self) -> None:
        self._loaded: LoadedModule | None = None

    def inspect(self, name: str) -> tuple[MotionFamily, MotionModuleConfig]:
        """What the named file is, from its header."""
        return inspect_motion_file(find_module(name))

    def load(self, name: str, dtype: torch.dtype) -> LoadedModule:
        """The named module in `dtype`, read again when the file has changed."""
        path = find_module(name)
        status = os.stat(path)
        stamp = (str(path.resolve()), status.st_mtime_ns, status.st_size, dtype)
        if self._loaded is None or self._loaded.stamp != stamp:
            self._loaded = None  # free it before the next one is read
            model, family = load_motion_model(path, device=torch.device("cpu"), dtype=dtype)
            self._loaded = LoadedModule(stamp, model, family)
        return self._loaded

    def clear(self) -> None:
        """Free the module."""
        self._loaded = None
