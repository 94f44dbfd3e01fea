"""Trains in a folder as a process of its own, to be killed: `python -m tests.training.killed_run FOLDER`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from motion.training.run_folder import RunFolder
from motion.training.trainer import Progress, Trainer
from tests.training.tiny_tasks import make_module_task, quiet

SETTINGS = quiet(steps=24, save_every=3, learning_rate=1e-3)

LAST_STEP = 18


def wait_for_death(progress: Progress) -> None:
    """So that a test that is slow to look doesn't come too late."""
    if progress.step == LAST_STEP:
        time.sleep(600)


if __name__ == "__main__":
    Trainer(make_module_task(), SETTINGS, RunFolder(Path(sys.argv[1])), on_progress=wait_for_death).run()
