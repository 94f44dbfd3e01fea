"""The running job: `modules.shared_state`, `shared.state`."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from typing import Any

logger = logging.getLogger(__name__)


class State:
    """What the job does, how far it is, and whether the user wants it to stop.

    Attributes:
        skipped: end this batch, go on with the next.
        interrupted: end the job as soon as possible; what is there is returned.
        stopping_generation: end the job after this batch.
        job: name of the job; empty when none runs.
        job_no: finished sampling passes.
        job_count: planned sampling passes; -1 until known.
        sampling_step: finished steps of this pass; a fraction while a step runs whose part is known.
        sampling_steps: steps of this pass.
        current_latent: the last prediction, (b f) c h w.
        textinfo: line of text for the progress bar.
        time_start: `time.time()` of the job's beginning.
        server_start: `time.time()` of the host's beginning.
    """

    def __init__(self) -> None:
        self.server_start = time.time()
        self.job = ""
        self.job_count = 0
        self.job_timestamp = "0"
        self.time_start: float | None = None
        self._command_given = threading.Event()
        self._server_command: str | None = None
        self._clear()

    def _clear(self) -> None:
        self.skipped = False
        self.interrupted = False
        self.stopping_generation = False
        self.job_no = 0
        self.processing_has_refined_job_count = False
        self.sampling_step: Any = 0
        self.sampling_steps = 0
        self.current_latent: Any = None
        self.current_image: Any = None
        self.current_image_sampling_step = 0
        self.id_live_preview = 0
        self.textinfo: str | None = None

    def begin(self, job: str = "(unknown)") -> None:
        """A job begins: all flags and counters are reset."""
        self._clear()
        self.time_start = time.time()
        self.job_count = -1
        self.job_timestamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
        self.job = job
        logger.info("Starting job %s", job)

    def end(self) -> None:
        """The job is over."""
        seconds = time.time() - self.time_start if self.time_start is not None else 0.0
        logger.info("Ending job %s (%.2f seconds)", self.job, seconds)
        self.job = ""
        self.job_count = 0

    def nextjob(self) -> None:
        """One sampling pass is finished."""
        self.job_no += 1
        self.sampling_step = 0
        self.current_image_sampling_step = 0

    def skip(self) -> None:
        """Ask the job to end this batch."""
        self.skipped = True
        logger.info("Received skip request")

    def interrupt(self) -> None:
        """Ask the job to end."""
        self.interrupted = True
        logger.info("Received interrupt request")

    def stop_generating(self) -> None:
        """Ask the job to end after this batch."""
        self.stopping_generation = True
        logger.info("Received stop generating request")

    def dict(self) -> dict[str, Any]:
        """What the progress API answers."""
        names = ("skipped", "interrupted", "stopping_generation", "job", "job_count", "job_timestamp", "job_no")
        return {name: getattr(self, name) for name in (*names, "sampling_step", "sampling_steps")}

    def set_current_image(self) -> None:
        """Live previews are not part of this host; the name is part of the API."""

    do_set_current_image = set_current_image

    def assign_current_image(self, image: Any) -> None:
        """Show `image` as the job's preview."""
        self.current_image = image
        self.id_live_preview += 1

    @property
    def server_command(self) -> str | None:
        """What the page or the API asked for: "stop", "kill" or "restart"."""
        return self._server_command

    @server_command.setter
    def server_command(self, value: str | None) -> None:
        self._server_command = value
        self._command_given.set()

    @property
    def need_restart(self) -> bool:
        """Whether a restart was asked for."""
        return self.server_command == "restart"

    @need_restart.setter
    def need_restart(self, value: bool) -> None:
        if value:
            self.server_command = "restart"

    def wait_for_server_command(self, timeout: float | None = None) -> str | None:
        """Wait up to `timeout` seconds for a command and take it; None if there was none."""
        if not self._command_given.wait(timeout):
            return None
        self._command_given.clear()
        command, self._server_command = self._server_command, None
        return command

    def request_restart(self) -> None:
        """End the job and ask the server to restart."""
        self.interrupt()
        self.server_command = "restart"
