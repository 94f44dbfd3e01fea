"""One job at a time: the door through which the page, the API and `Pipeline` run theirs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from motion.standalone import host_state, shared
from motion.standalone.processing import process_images


def run_job(p: Any, name: str, listener: Callable[[int, int | None], None] | None = None) -> Any:
    """Run a job when those before it are done.

    Args:
        p: the processing object, scripts and script arguments set; closed afterwards.
        name: what the progress request calls the job.
        listener: called with (steps done, steps in all or None) after each step.

    Returns:
        `Processed`.
    """
    with host_state.current().job_lock, closing(p):
        shared.state.begin(job=name)
        shared.total_tqdm.listener = listener
        try:
            processed = p.scripts.run(p, *p.script_args) if p.scripts is not None and p.script_args else None
            return process_images(p) if processed is None else processed
        finally:
            shared.total_tqdm.listener = None
            shared.state.end()
            shared.total_tqdm.clear()


def job_progress() -> tuple[float, float]:
    """(share of the running job that is done, 0 to 1; seconds that it still needs, by its pace so far).

    Without a job (0, 0). A job counts as a hundredth done when it begins, as in the web UI.
    """
    state = shared.state
    if state.job_count == 0 or state.time_start is None:
        return 0.0, 0.0
    progress = 0.01
    if state.job_count > 0:
        progress += state.job_no / state.job_count
        if state.sampling_steps > 0:
            progress += state.sampling_step / state.sampling_steps / state.job_count
    elapsed = time.time() - state.time_start
    return min(progress, 1.0), elapsed / progress - elapsed
