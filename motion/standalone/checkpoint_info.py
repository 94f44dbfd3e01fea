"""One checkpoint file in the host's list, and the names it answers to; part of `modules.sd_models`."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

SHORT_HASH_DIGITS = 10
_OLD_HASH_OFFSET, _OLD_HASH_LENGTH = 0x100000, 0x10000


class CheckpointInfo:
    """A checkpoint file.

    Attributes:
        filename: its path.
        name: path inside the models folder, or the file's name elsewhere.
        name_for_extra: file name without extension.
        model_name: `name` without extension, folders joined by "_".
        title: what the user chooses: `name`, and the short hash once it is known.
        short_title: the same of `name_for_extra`.
        hash: old, collision-prone hash that infotexts of 2022 hold.
        sha256: hash of the whole file, None until computed.
        shorthash: its first digits.
        ids: every name under which the file is found.
    """

    def __init__(self, filename: str | os.PathLike[str], models_folder: str | os.PathLike[str] | None = None) -> None:
        path = Path(filename).absolute()
        self.filename = str(path)
        self.is_safetensors = path.suffix.lower() == ".safetensors"
        inside = models_folder is not None and path.is_relative_to(Path(models_folder).absolute())
        self.name = str(path.relative_to(Path(models_folder).absolute())) if inside and models_folder else path.name
        self.name_for_extra = path.stem
        self.model_name = os.path.splitext(self.name.replace("/", "_").replace("\\", "_"))[0]
        self.hash = model_hash(self.filename)
        self.sha256: str | None = None
        self.metadata: dict[str, str] = {}

    @property
    def shorthash(self) -> str | None:
        """First digits of the SHA-256; None until it is computed."""
        return self.sha256[:SHORT_HASH_DIGITS] if self.sha256 else None

    @property
    def title(self) -> str:
        """What the user chooses."""
        return f"{self.name} [{self.shorthash}]" if self.shorthash else self.name

    @property
    def short_title(self) -> str:
        """The title without folders and extension."""
        return f"{self.name_for_extra} [{self.shorthash}]" if self.shorthash else self.name_for_extra

    @property
    def ids(self) -> list[str]:
        """Every name under which the file is found."""
        names = [self.hash, self.model_name, self.title, self.name, self.name_for_extra, f"{self.name} [{self.hash}]"]
        names += [self.filename]
        if self.sha256 and self.shorthash:
            names += [self.shorthash, self.sha256, self.short_title]
        return names

    def calculate_shorthash(self) -> str:
        """First digits of the SHA-256; reads the whole file the first time.

        Register the checkpoint again afterwards: its title has changed.
        """
        status = os.stat(self.filename)
        self.sha256 = _sha256(self.filename, status.st_size, status.st_mtime_ns)
        return self.sha256[:SHORT_HASH_DIGITS]


def model_hash(filename: str) -> str:
    """Hash of 64 KiB of a file's second mebibyte, 8 digits; "NOFILE" where there is no file."""
    try:
        with open(filename, "rb") as file:
            file.seek(_OLD_HASH_OFFSET)
            return hashlib.sha256(file.read(_OLD_HASH_LENGTH)).hexdigest()[:8]
    except FileNotFoundError:
        return "NOFILE"


@functools.lru_cache(maxsize=64)
def _sha256(filename: str, size: int, modified: int) -> str:
    digest = hashlib.sha256()
    with open(filename, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
