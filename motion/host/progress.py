"""What a web UI shows while a clip is sampled: where within a step it is, and how long the pass still takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modules import sd_samplers_common, shared

from motion.protocols import UNetPart, UNetWindow


class ClipProgress:
    """Moves the progress bar within a step, and says how long the pass will take once its first step is done.

    Hosts move the bar once a step, by `shared.state.sampling_step`, a whole number that lags by one from the second
    step on. While a part of a step runs, it is the steps done and the part of this one.

    Args:
        clock: seconds that pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._headline = ""
        self._written: str | None = None
        self.begin_pass()

    def begin_pass(self) -> None:
        """A sampling pass begins."""
        self._num_begun = 0
        self._step: tuple[int, int] | None = None
        self._began_at: list[tuple[int, float]] = []
        self._step_rows = self._rows_done = self._call_rows = 0
        self._before_call: float = 0

    def begin_step(self, num_rows: int, step: tuple[int, int] | None = None) -> None:
        """A step begins.

        Args:
            num_rows: rows of all its UNet calls.
            step: its number, from 0, and how many this pass has; None where the host doesn't know.
        """
        if step is not None and self._step is not None and step[0] <= self._step[0]:  # FreeInit samples once more
            self._began_at = []
        self._num_begun += 1
        self._step = step
        self._step_rows, self._rows_done, self._call_rows = num_rows, 0, 0
        if step is not None:
            self._began_at.append((step[0], self._clock()))
        self._write(self._own_headline(), 0.0)

    def show_part(self, part: UNetPart) -> None:
        """A part of a call begins that runs on all frames at once.

        Raises:
            InterruptedException: Interrupt or Skip; the sampler then returns what it has.
        """
        _stop_where_asked()
        if part.index == 0:
            self._begin_call(part.num_rows)
            self._before_call = shared.state.sampling_step
        if part.index == part.count - 1:
            shared.state.sampling_step = self._before_call
            return
        share = self._share(part.index / part.count)
        shared.state.sampling_step = self._steps_done(self._before_call, share)
        self._write(self._own_headline(), share)

    @contextmanager
    def shown(self, window: UNetWindow) -> Iterator[None]:
        """While in the context, show this window.

        Raises:
            InterruptedException: Interrupt or Skip; the sampler then returns what it has.
        """
        _stop_where_asked()
        if window.index == 0:
            self._begin_call(window.num_rows)
        state, headline = shared.state, self._own_headline()
        before, share = state.sampling_step, self._share(window.index / window.count)
        state.sampling_step = self._steps_done(before, share)
        self._write(f"Motion: window {window.index + 1} of {window.count} (scope unet)", share)
        try:
            yield
        finally:
            state.sampling_step = before
            self._write(headline, share)

    def _begin_call(self, num_rows: int) -> None:
        self._rows_done += self._call_rows
        self._call_rows = num_rows

    def _share(self, of_call: float) -> float:
        """Of the step, what is done when this share of the running call is."""
        return min(1.0, (self._rows_done + self._call_rows * of_call) / max(1, self._step_rows))

    def _steps_done(self, host_step: float, share: float) -> float:
        return min(host_step + (self._num_begun > 1) + share, max(float(shared.state.sampling_steps), host_step))

    def _own_headline(self) -> str:
        """The line of text without what was added to it here; others, FreeInit among them, write it too."""
        if shared.state.textinfo != self._written:
            self._headline = shared.state.textinfo or ""
        return self._headline

    def _write(self, headline: str, share: float) -> None:
        self._headline = headline
        self._written = shared.state.textinfo = headline + self._time_left(share)

    def _time_left(self, share: float) -> str:
        """From the steps that are done: how long the rest of the pass takes, and the whole of it."""
        if self._step is None or len(self._began_at) < 2:
            return ""
        (first, began), (now, now_began) = self._began_at[0], self._began_at[-1]
        seconds = (now_began - began) / (now - first)
        number, total = self._step
        left = seconds * (total - number - share)
        return f" · {in_minutes(left)} left of {in_minutes(seconds * total)}"


def in_minutes(seconds: float) -> str:
    """A duration as people read it."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def _stop_where_asked() -> None:
    if shared.state.interrupted or shared.state.skipped:
        raise sd_samplers_common.InterruptedException
