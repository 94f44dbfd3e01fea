"""The small models that come with the program, put where a data folder's models belong."""

from __future__ import annotations

import filecmp
import os
import shutil
import uuid
from pathlib import Path
from types import MappingProxyType

from motion.video.folder import output_error

SHIPPED = Path(__file__).with_name("demo")
"""The models as they come with the program, each with a card that says how it was made; see README.md there."""

CHECKPOINT = Path("models", "Stable-diffusion", "shapes.safetensors")
MOTION_MODULE = Path("models", "motion", "shapes-mm-v2.safetensors")
_FOLDERS = MappingProxyType(
    {
        "shapes.safetensors": CHECKPOINT.parent,
        "shapes.yaml": CHECKPOINT.parent,
        "shapes-text": CHECKPOINT.parent,
        "shapes-mm-v2.safetensors": MOTION_MODULE.parent,
        "shapes-mm-v3.safetensors": MOTION_MODULE.parent,
    }
)


def copy_demo_files(data_dir: Path) -> tuple[Path, Path]:
    """Copy the shipped models under `data_dir`/models, where they are not there yet or are others.

    Returns:
        The checkpoint and the motion module of the demo.

    Raises:
        OutputError: the folder can't be written to.
    """
    for name, folder in _FOLDERS.items():
        source = SHIPPED / name
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        for file in files:
            _copy(file, data_dir / folder / file.relative_to(SHIPPED))
    return data_dir / CHECKPOINT, data_dir / MOTION_MODULE


def _copy(source: Path, target: Path) -> None:
    """Copy under another name first, so that a killed run never leaves half a file."""
    try:
        if target.exists() and filecmp.cmp(source, target, shallow=False):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".unfinished-{uuid.uuid4().hex}{target.suffix}")
        try:
            shutil.copyfile(source, unfinished)
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, f"The demo's models must be written to {target.parent}") from error
