"""Training beside the web UI: the command line in a process of its own, so that no crash of it can take the UI along.

The process holds the other end of a pipe to this one. When the web UI ends, however it ends, the pipe closes, and the
process saves its state and ends too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import motion
from motion.errors import MotionError, SettingsError
from motion.training.lora_estimate import duration
from motion.training.run_progress import PREPARING, TRAINING, RunProgress, read_progress

REPORT_FILE, LOG_FILE, STOP_FILE = "report.txt", "log.txt", "stop"
_ERROR = "error: "
_SHOWN_LINES = 5


@dataclass(frozen=True)
class JobStatus:
    """How the job stands.

    Attributes:
        running: its process is there.
        headline: one line; empty before the first job.
        error: what went wrong; empty mostly.
        report: on the videos, and the estimate.
        progress: of the training; None for a check.
        curve: picture of the loss.
        sheet: the newest sample sheet.
    """

    running: bool = False
    headline: str = ""
    error: str = ""
    report: str = ""
    progress: RunProgress | None = None
    curve: Path | None = None
    sheet: Path | None = None


class TrainingJob:
    """The one check or training that runs, or ran last."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._is_check = False

    def start(self, flags: Mapping[str, str], folder: Path, *, check: bool = False) -> None:
        """Start `python -m motion train motion-lora`.

        Args:
            flags: without their dashes -> value; "" for a flag without one.
            folder: of the run; made if missing.
            check: only check the videos and estimate.

        Raises:
            SettingsError: a job is running.
            MotionError: the folder or the process can't be made.
        """
        if self.running:
            raise SettingsError("Only one training or check can run at a time, and one is running. Stop it first.")
        command = [sys.executable, "-m", "motion", "train", "motion-lora", "--stop-at-end-of-input"]
        command += [f"--{name}={value}" if value else f"--{name}" for name, value in flags.items()]
        command += [f"--out={folder}", *(["--check"] if check else [])]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STOP_FILE).unlink(missing_ok=True)
            if not check:
                (folder / "progress.json").unlink(missing_ok=True)
            with (folder / REPORT_FILE).open("wb") as report, (folder / LOG_FILE).open("wb") as log:
                self._process = subprocess.Popen(
                    command, cwd=_program_folder(), stdin=subprocess.PIPE, stdout=report, stderr=log
                )
        except OSError as error:
            raise MotionError(
                f"The training must be able to start and to write to {folder}, got: {error}. Free some space there, or "
                "give the web UI the permission to write."
            ) from error
        self._folder, self._is_check = folder, check

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask the running training to save its state and end; a check is ended at once."""
        if self._is_check:
            self.close()
        elif self.running:
            (self._folder / STOP_FILE).touch()

    def close(self) -> None:
        """End the process as the end of the web UI does; it saves its state."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def status(self) -> JobStatus:
        """How the job stands now."""
        if self._process is None:
            return JobStatus()
        running = self.running
        report = _read(self._folder / REPORT_FILE)
        error = "" if running else self._error(self._process.returncode)
        if self._is_check:
            headline = "Checking the videos and the memory …" if running else "The check is done."
            return JobStatus(running, headline, error, report)
        progress = read_progress(self._folder)
        curve = self._folder / "loss.png"
        sheets = sorted((self._folder / "samples").glob("step-*.png"))
        return JobStatus(
            running,
            _headline(progress, running),
            error,
            report,
            progress,
            curve if curve.exists() else None,
            sheets[-1] if sheets else None,
        )

    def _error(self, status: int) -> str:
        if status in (0, 130):
            return ""
        lines = _read(self._folder / LOG_FILE).replace("\r", "\n").splitlines()
        said = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
        if said:
            return said[-1]
        last = " ".join(line.strip() for line in lines[-_SHOWN_LINES:] if line.strip())
        kept = "" if self._is_check else " The last saved state is kept: start again to go on from it."
        return f"The training's process must end by itself, it was ended with status {status}. {last}{kept}"


def _headline(progress: RunProgress | None, running: bool) -> str:
    if progress is None:
        return "Starting …" if running else "Training ended before it began."
    if running and progress.state == PREPARING:
        return f"{progress.text} …"
    if progress.state != TRAINING:
        return progress.text
    loss = "" if progress.loss is None else f", loss {progress.loss:.4g}"
    left = f", {duration(progress.seconds_left)} left" if running else ""
    note = f" {progress.text}" if progress.text else ""
    return f"Step {progress.step} of {progress.steps}{loss}{left}.{note}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _program_folder() -> Path:
    """Where `python -m motion` finds this package and no other of its name."""
    return Path(motion.__file__).resolve().parents[1]
