"""Weight files of the extension on disk: where they are, which one a name means, and the module that is kept loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from modules import paths, shared

from motion.checkpoints.domain_adapter_file import DomainAdapter, load_domain_adapter
from motion.checkpoints.format_types import AnyFormat, Kind
from motion.checkpoints.inspection import Inspection, inspect_file
from motion.checkpoints.library import LibraryEntry, ModelLibrary
from motion.checkpoints.motion_file import MotionFamily, inspect_motion_file, load_motion_model
from motion.checkpoints.motion_lora_file import MotionLora, load_motion_lora
from motion.checkpoints.registry import known_formats
from motion.errors import CheckpointError, SettingsError
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.protocols import Placement

FOLDERS_OPTION = "motion_module_folders"
_OLDER_EXTENSIONS = "*animatediff*/model"


def module_folders() -> list[Path]:
    """Folders that are searched for motion modules and adapters, the first being the one to put files into."""
    chosen = getattr(shared.cmd_opts, "motion_module_dir", None)
    extra = [folder.strip() for folder in str(getattr(shared.opts, FOLDERS_OPTION, "") or "").split(";")]
    extensions = Path(getattr(paths, "extensions_dir", "") or "extensions")
    return [
        *([Path(chosen)] if chosen else []),
        Path(paths.models_path) / "motion",
        *(Path(folder) for folder in extra if folder),
        *(sorted(extensions.glob(_OLDER_EXTENSIONS)) if extensions.is_dir() else []),
    ]


def lora_folders() -> list[Path]:
    """Folders that are searched for motion LoRAs: the host's own, then those of the motion modules."""
    host = getattr(shared.cmd_opts, "lora_dir", None) or Path(paths.models_path) / "Lora"
    return [Path(host), *module_folders()]


@dataclass
class LoadedModule:
    """A motion module in memory, with what its file was when it was read."""

    stamp: tuple[str, int, int, torch.dtype, torch.dtype, str]
    model: MotionModel
    family: MotionFamily


class ModelFiles:
    """Lists files by content, with a cache of their headers, and keeps the last clip's module on the CPU."""

    def __init__(self) -> None:
        self._loaded: LoadedModule | None = None
        self._libraries: dict[Kind, tuple[tuple[list[Path], Path, tuple[AnyFormat, ...]], ModelLibrary]] = {}

    def names(self, kind: Kind) -> list[str]:
        """Names of the files of one kind, as drop-downs offer them; a file that can't be used says why when chosen."""
        return [entry.name for entry in self._entries(kind)]

    def describe(self, name: str, family: str = "auto") -> Inspection | None:
        """What the motion module `name` is, taken for `family`, an id or "auto"; None while none is chosen."""
        if not name:
            return None
        return inspect_file(self.find("motion_module", name), family=_chosen(family), formats=known_formats())

    def find(self, kind: Kind, name: str) -> Path:
        """The file that `name` (as in the drop-down, without its suffix, or a path) means.

        Raises:
            SettingsError: no name was given.
            CheckpointError: there is no such file.
        """
        words = kind.replace("_", " ")
        folders = lora_folders() if kind == "motion_lora" else module_folders()
        if not name or name == "None":
            raise SettingsError(
                f"`{kind}` must name a {words} file, got none. Put one into {folders[0]} and choose it."
            )
        below = [folder / name for folder in folders]
        for path in filter(_is_file, below):
            return path
        entries = self._entries(kind)
        by_stem = [entry.path for entry in entries if entry.path.stem == name]
        for path in (*by_stem, *filter(_exists, (Path(name), *below))):
            return path
        known = ", ".join(entry.name for entry in entries)
        remedy = f"Choose one of: {known}." if known else f"Put the file into {folders[0]}."
        raise CheckpointError(name, f"there is no {words} of this name.", remedy)

    def motion_lora_names(self) -> frozenset[str]:
        """Every `name` of a tag `<lora:name>` that means a motion LoRA of ours and no ordinary one."""
        entries = self._entries("motion_lora")
        return frozenset(name for entry in entries for name in (entry.path.stem, entry.name))

    def inspect(self, name: str, family: str) -> tuple[MotionFamily, MotionModuleConfig]:
        """What the motion module `name` is, from its header; `family` is an id or "auto"."""
        path = self.find("motion_module", name)
        return inspect_motion_file(path, family=_chosen(family), formats=known_formats())

    def load(self, name: str, family: str, placement: Placement) -> LoadedModule:
        """The motion module `name` on the CPU in the formats of `placement`, read again when the file has changed."""
        path = self.find("motion_module", name)
        status = os.stat(path)
        dtype, storage_dtype = placement.dtype, placement.storage_dtype
        stamp = (str(path.resolve()), status.st_mtime_ns, status.st_size, dtype, storage_dtype, family)
        if self._loaded is None or self._loaded.stamp != stamp:
            self._loaded = None  # free it before the next one is read
            model, found = load_motion_model(
                path,
                device=torch.device("cpu"),
                dtype=dtype,
                storage_dtype=storage_dtype,
                family=_chosen(family),
                formats=known_formats(),
            )
            self._loaded = LoadedModule(stamp, model, found)
        return self._loaded

    def load_lora(self, name: str) -> MotionLora:
        """The motion LoRA `name`."""
        return load_motion_lora(self.find("motion_lora", name))

    def load_adapter(self, name: str) -> DomainAdapter:
        """The domain adapter `name`."""
        return load_domain_adapter(self.find("domain_adapter", name))

    def unload(self) -> None:
        """Free the module that is kept."""
        self._loaded = None

    def _entries(self, kind: Kind) -> list[LibraryEntry]:
        folders = lora_folders() if kind == "motion_lora" else module_folders()
        cache = Path(paths.data_path) / "cache" / f"motion_files_{kind}.json"
        wanted = (folders, cache, known_formats())
        if kind not in self._libraries or self._libraries[kind][0] != wanted:
            self._libraries[kind] = wanted, ModelLibrary(*wanted)
        return self._libraries[kind][1].entries((kind,))


def _chosen(family: str) -> str | None:
    return None if family == "auto" else family


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()


def _exists(path: Path) -> bool:
    """Whether there is anything; a name that no file system takes is nothing."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
