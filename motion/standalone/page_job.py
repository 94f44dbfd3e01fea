"""What the page's Generate button does: runs a job, shows how far it is, then what came of it."""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from motion.errors import MotionError, SettingsError
from motion.standalone import jobs, shared
from motion.standalone.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img
from motion.standalone.ui_common import plaintext_to_html

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_UPDATES = 0.3
VIDEO_SUFFIXES = (".mp4", ".webm")

Update = tuple[Any, Any, Any, Any, Any]
"""Values of progress, clip, gallery, infotext and log."""


class PageJob:
    """Runs the jobs of one tab.

    Args:
        tab: "txt2img" or "img2img".
        runner: the tab's scripts.
        fields: arguments of the processing class, in the order in which `run` gets their values.
    """

    def __init__(self, tab: str, runner: Any, fields: tuple[str, ...]) -> None:
        self._tab = tab
        self._runner = runner
        self._fields = fields

    def run(self, *values: Any) -> Iterator[Update]:
        """Gradio's event: the controls' values, then the scripts' arguments; yields what the page shows."""
        began = time.perf_counter()
        outcome: dict[str, Any] = {}
        worker = threading.Thread(target=self._work, args=(values, outcome), name=f"motion-{self._tab}")
        worker.start()
        unchanged = gr.update()
        yield progress_html(), "", unchanged, "", ""
        while worker.is_alive():
            worker.join(SECONDS_BETWEEN_UPDATES)
            yield progress_html(), unchanged, unchanged, unchanged, unchanged
        if "error" in outcome:
            yield "", "", None, "", error_html(outcome["error"])
        else:
            yield self._shown(outcome["processed"], time.perf_counter() - began)

    def _work(self, values: tuple[Any, ...], outcome: dict[str, Any]) -> None:
        try:
            p = self._processing(values)
            outcome["processed"] = jobs.run_job(p, self._tab)
        except MotionError as error:
            outcome["error"] = error
        except Exception as error:  # the page's last line: whatever went wrong is shown, and the log has the trace
            logger.exception("The %s job failed", self._tab)
            outcome["error"] = error

    def _processing(self, values: tuple[Any, ...]) -> Any:
        arguments = dict(zip(self._fields, values, strict=False))
        arguments = {name: _whole(name, value) for name, value in arguments.items()}
        opts = shared.opts
        arguments["outpath_samples"] = opts.outdir_samples or getattr(opts, f"outdir_{self._tab}_samples")
        arguments["outpath_grids"] = opts.outdir_grids or getattr(opts, f"outdir_{self._tab}_grids")
        p: Any
        if self._tab == "img2img":
            picture = arguments.pop("init_images")
            if picture is None:
                raise SettingsError("img2img needs a picture to start from, got none. Put one into the field.")
            p = StableDiffusionProcessingImg2Img(**arguments, init_images=[picture])
        else:
            p = StableDiffusionProcessingTxt2Img(**arguments)
        p.scripts = self._runner
        p.script_args = values[len(self._fields) :]
        return p

    def _shown(self, processed: Any, seconds: float) -> Update:
        files = [Path(path) for path in getattr(processed, "clip_files", ())]
        info = plaintext_to_html(processed.info) if processed.info else ""
        log = plaintext_to_html(processed.comments.strip(), classname="comments") if processed.comments else ""
        log += f"<p class='performance'>Time taken: {seconds:.1f} s</p>"
        return "", clip_html(files), [_gallery_item(image) for image in processed.images], info, log


def _whole(name: str, value: Any) -> Any:
    """Sliders and numbers send floats; the host counts in integers."""
    whole = ("steps", "width", "height", "n_iter", "seed", "hr_second_pass_steps")
    if name not in whole:
        return value
    if value is None or value != int(value):
        raise SettingsError(f"`{name}` must be a whole number, got {value!r}. Enter one.")
    return int(value)


def _gallery_item(image: Any) -> Any:
    return image if isinstance(image, str) else getattr(image, "already_saved_as", None) or image


def progress_html() -> str:
    """The progress bar, step and time left of the job that runs now."""
    state = shared.state
    share, seconds_left = jobs.job_progress()
    if not state.job:
        text = "Waiting"
    elif state.interrupted:
        text = "Interrupting …"
    elif state.sampling_steps == 0:
        text = "Preparing …"
    else:
        text = f"Step {min(int(state.sampling_step) + 1, state.sampling_steps)}/{state.sampling_steps}"
        if state.job_count > 1:
            text = f"Pass {state.job_no + 1}/{state.job_count} · {text}"
        if state.textinfo:
            text += f" · {state.textinfo}"
        if share > 0.02:
            text += f" · {_duration(seconds_left)} left"
    return f"<div class='motion-progress'><div style='width:{share:.1%}'></div><span>{html.escape(text)}</span></div>"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def error_html(error: Exception) -> str:
    """One plain message."""
    text = str(error) if isinstance(error, MotionError) else f"{type(error).__name__}: {error}"
    return f"<div class='error'>{html.escape(text)}</div>"


def clip_html(files: list[Path]) -> str:
    """A player for the first video, and a link to every file."""
    videos = [path for path in files if path.suffix in VIDEO_SUFFIXES]
    parts = [f"<video src='{_address(path)}' controls loop autoplay muted></video>" for path in videos[:1]]
    named = [path for path in files if path.suffix]
    links = [f"<a href='{_address(path)}' target='_blank'>{html.escape(path.name)}</a>" for path in named]
    return "".join(parts) + (f"<p>{' · '.join(links)}</p>" if links else "")


def _address(path: Path) -> str:
    return html.escape("file=" + quote(str(path)), quote=True)
