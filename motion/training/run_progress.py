"""How far a run is, as a small file in its folder, for whoever watches from outside."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from motion.training.gradient_checks import TrainingError
from motion.training.run_folder import RunFolder

PROGRESS_FILE = "progress.json"
PREPARING, TRAINING, STOPPED, FINISHED, FAILED = "preparing", "training", "stopped", "finished", "failed"
_SECONDS_BETWEEN_WRITES = 0.5


@dataclass(frozen=True)
class RunProgress:
    """The file's content.

    Attributes:
        state: PREPARING, TRAINING, STOPPED, FINISHED or FAILED.
        text: what is being done, what came of it, or what went wrong.
        step: steps done.
        steps: steps in all; 0 while not known.
        loss: of the last step.
        seconds_per_step: mean of this session.
    """

    state: str
    text: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds_per_step: float = 0.0

    @property
    def seconds_left(self) -> float:
        """Until the last step, samples not counted."""
        return (self.steps - self.step) * self.seconds_per_step


class ProgressFile:
    """Writes a run's progress, not more often than it can be looked at.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._written = 0.0

    def write(self, progress: RunProgress) -> None:
        """Write it; steps that follow one another closely are left out. A full disk is none of its business."""
        now = time.monotonic()
        if progress.state == TRAINING and now - self._written < _SECONDS_BETWEEN_WRITES:
            return
        self._written = now
        with suppress(TrainingError):
            self._folder.save_text(PROGRESS_FILE, json.dumps(asdict(progress)))


def read_progress(folder: Path) -> RunProgress | None:
    """What the run in `folder` wrote last; None where there is none."""
    try:
        return RunProgress(**json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
