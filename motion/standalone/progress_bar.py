"""The command line's progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class StepBar:
    """A bar that `Pipeline` moves; it also keeps the time."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._times: list[float] = []

    def on_step(self, done: int, total: int, latents: Any) -> None:
        """`Pipeline`'s callback."""
        self._times.append(time.perf_counter())
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    @property
    def seconds_per_step(self) -> float:
        """Mean time between two steps; 0 before there were two."""
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1) if len(self._times) > 1 else 0.0


@contextmanager
def progress_bar(steps: int) -> Iterator[StepBar]:
    """A bar of `steps` on stderr for the length of a `with` block."""
    with tqdm(total=steps, unit="step", desc="Rendering", file=sys.stderr) as bar:
        yield StepBar(bar)
