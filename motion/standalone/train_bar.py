"""Progress of a training run on the command line: a bar, notes above it, and the run's own progress file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from motion.training.run_progress import TRAINING, ProgressFile, RunProgress
from motion.training.trainer import Progress


class TrainBar:
    """A bar on stderr that `Trainer` moves.

    Args:
        title: in front of it.
        steps: of the run.
        file: progress for others; None keeps none.
    """

    def __init__(self, title: str, steps: int, file: ProgressFile | None = None) -> None:
        self._title = title
        self._steps = steps
        self._file = file
        self._bar: Any = None

    @contextmanager
    def shown(self, step: int) -> Iterator[None]:
        """Show it, `step` steps being done, for the length of a `with` block."""
        with tqdm(total=self._steps, initial=step, unit="step", desc=self._title, file=sys.stderr) as self._bar:
            yield

    def on_progress(self, progress: Progress) -> None:
        """`Trainer`'s callback; inside `shown`."""
        self._bar.set_postfix_str(f"loss {progress.loss:.4g}", refresh=False)
        self._bar.update(progress.step - self._bar.n)
        if progress.note:
            self._bar.write(progress.note, file=sys.stderr)
        if self._file is not None:
            numbers = (progress.step, progress.steps, progress.loss, progress.seconds_per_step)
            self._file.write(RunProgress(TRAINING, progress.note, *numbers))


@contextmanager
def file_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; its function takes (files done, files in all)."""
    with tqdm(unit="file", desc=title, file=sys.stderr, leave=False) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move
