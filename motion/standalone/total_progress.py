"""Progress over all sampling passes of a job: `shared.total_tqdm`."""

from __future__ import annotations

from collections.abc import Callable


class TotalProgress:
    """Counts steps and tells a listener, where the command line has set one.

    Attributes:
        listener: called with (done, total) after each step; total is None until known.
    """

    def __init__(self) -> None:
        self.listener: Callable[[int, int | None], None] | None = None
        self._done = 0
        self._total: int | None = None

    def reset(self) -> None:
        """Begin at zero."""
        self.clear()

    def update(self) -> None:
        """One step is done."""
        self._done += 1
        if self.listener is not None:
            self.listener(self._done, self._total)

    def updateTotal(self, new_total: int) -> None:  # noqa: N802 - the API's name
        """The number of steps is now known."""
        self._total = new_total

    def clear(self) -> None:
        """The job is over."""
        self._done = 0
        self._total = None
