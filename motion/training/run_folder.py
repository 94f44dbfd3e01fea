"""A training run on disk: states to resume from, the loss of every step, sample sheets; nothing is half written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from motion.training.gradient_checks import TrainingError

KEPT_STATES = 2
STOP_FILE = "stop"
_STATE = re.compile(r"state-(\d{7})\.safetensors")


class RunFolder:
    """The folder of one run.

    Args:
        path: made if missing.

    Raises:
        TrainingError: it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.guarded("The run's folder", lambda: path.mkdir(parents=True, exist_ok=True))

    @property
    def stop_file(self) -> Path:
        """A run that finds this file saves its state and ends."""
        return self.path / STOP_FILE

    def states(self) -> list[tuple[int, Path]]:
        """(step, file) of the saved states, the newest first."""
        found = ((_STATE.fullmatch(path.name), path) for path in self.path.glob("state-*.safetensors"))
        return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)

    def save_state(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Write the state after `step` steps, then drop all but the newest `KEPT_STATES`.

        Raises:
            TrainingError: the disk is full or can't be written to; older states are untouched.
        """
        path = self.path / f"state-{step:07d}.safetensors"
        metadata = {"facts": json.dumps(facts)}
        self.write(path, lambda temporary: save_file(dict(tensors), temporary, metadata))
        for _, old in self.states()[KEPT_STATES:]:
            with suppress(OSError):  # it is tried again after the next state
                old.unlink()
        return path

    def load_state(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """(steps done, tensors, facts) of the newest state that is whole; None for a fresh run."""
        for step, path in self.states():
            try:
                with safe_open(path, framework="pt") as file:
                    facts = json.loads(file.metadata()["facts"])
                    return step, {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
            except (OSError, SafetensorError, ValueError, KeyError, TypeError):
                continue  # cut off by a crash of the machine, or not ours: the one before it is as good
        return None

    def save_image(self, name: str, image: Image.Image) -> Path:
        """Write `image` as a PNG called `name` (it may hold a folder).

        Raises:
            TrainingError: the disk is full or can't be written to.
        """
        path = self.path / name
        self.write(path, lambda temporary: image.save(temporary, format="PNG"))
        return path

    def save_text(self, name: str, text: str) -> Path:
        """Write a text file.

        Raises:
            TrainingError: the disk is full or can't be written to.
        """
        path = self.path / name
        self.write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return path

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file under another name, flush it to the disk, and give it its name when whole.

        Raises:
            TrainingError: the disk is full or can't be written to.
        """
        temporary = path.with_name(f".{path.name}.unfinished")

        def replace() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(temporary)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

        self.guarded(f"The file {path.name}", replace)

    def guarded(self, what: str, operation: Callable[[], object]) -> None:
        """Run what writes into the folder by itself; `what` names it in the message.

        Raises:
            TrainingError: the disk is full or can't be written to.
        """
        try:
            operation()
        except (OSError, SafetensorError) as error:
            states = self.states() if self.path.is_dir() else []
            kept = f"The state of step {states[0][0]} is kept" if states else "No state was saved yet"
            reason = getattr(error, "strerror", None) or error
            raise TrainingError(
                f"{what} must be written to {self.path}, got: {reason}. {kept}. Free some space there, or give "
                "yourself the permission to write, then run the same command again to resume.",
                status_code=507,
            ) from error
