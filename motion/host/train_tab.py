"""The tab "Train motion LoRA": fields for a run, what its check and its process say, and live samples."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from modules import devices, paths, sd_models, shared
from modules.ui_components import ToolButton
from PIL import Image

from motion.errors import MotionError, SettingsError
from motion.host.module_files import ModelFiles, lora_folders
from motion.host.training_job import JobStatus, TrainingJob
from motion.training.lora_settings import check_name

TITLE, ELEM_ID = "Train motion LoRA", "motion_train"
RUNS_FOLDER = "motion-training"
_SECONDS_BETWEEN_UPDATES = 1.0
_INTRODUCTION = (
    "Trains a motion LoRA for a motion module from 20 to 50 videos of one kind of motion. Each video needs a caption "
    "in a .txt of the same name beside it. The LoRA goes into the web UI's LoRA folder."
)


@dataclass(frozen=True)
class TrainField:
    """One field of the tab, and the flag of the command line that it fills.

    Attributes:
        flag: without its dashes.
        label: in the page.
        info: below it.
        value: default.
    """

    flag: str
    label: str
    info: str
    value: str | int | float | bool


FIELDS = (
    TrainField("videos", "Folder of videos", "On the machine where the web UI runs.", ""),
    TrainField("name", "Name", "Of the LoRA's file, and of the run: the same name resumes it.", ""),
    TrainField("module", "Motion module", "The LoRA works with this module and its relatives.", ""),
    TrainField("checkpoint", "Checkpoint", "An SD1.5 checkpoint; better a plain one than a stylised one.", ""),
    TrainField("rank", "Rank", "Higher learns more and makes a larger file.", 64),
    TrainField("steps", "Steps", "300 to 2000.", 1000),
    TrainField("learning-rate", "Learning rate", "At its peak.", 1e-4),
    TrainField("size", "Size", "Pixels, such as 256 or 384x256; a multiple of 64.", "256"),
    TrainField("default-caption", "Default caption", "Of videos without a .txt; empty refuses these.", ""),
    TrainField("skip-bad", "Leave out bad videos", "In place of refusing the folder.", False),
    TrainField("both-ways", "Both ways", "Backwards at weight -1: pans both ways.", False),
    TrainField("gradient-checkpointing", "Gradient checkpointing", "A fraction of the memory, a third slower.", True),
    TrainField("batch-size", "Batch size", "Clips at a time.", 1),
    TrainField("accumulation", "Accumulation", "Batches that make one step.", 1),
    TrainField("frames", "Frames", "Of a clip; 0 takes those that the module was trained on.", 0),
    TrainField("frame-stride", "Frame stride", "Takes every n-th frame; 0 comes near to 8 a second.", 0),
    TrainField("clips-per-video", "Clips per video", "Cut at different places.", 1),
    TrainField("sample-every", "Samples every", "Steps between sample sheets; 0 makes none.", 250),
    TrainField("seed", "Seed", "Of everything random.", 0),
)
_ROWS = (("videos", "name"), ("module", "checkpoint"), ("rank", "steps", "learning-rate", "size"))
_CAPTION_ROWS = (("default-caption", "skip-bad", "both-ways"),)
_MORE_ROWS = (
    ("gradient-checkpointing", "batch-size", "accumulation"),
    ("frames", "frame-stride", "clips-per-video"),
    ("sample-every", "seed"),
)


class TrainTab:
    """Builds the tab and answers its buttons.

    Args:
        files: the extension's weight files; the module that it keeps loaded is freed when training starts.
        job: what the tab starts.
    """

    def __init__(self, files: ModelFiles, job: TrainingJob) -> None:
        self._files = files
        self._job = job

    def tabs(self) -> list[tuple[Any, str, str]]:
        """For the web UI's list of tabs; none where the command line keeps folders out of the page."""
        if getattr(shared.cmd_opts, "hide_ui_dir_config", False):
            return []
        return [(self._build(), TITLE, ELEM_ID)]

    def flags(self, values: Mapping[str, Any]) -> tuple[dict[str, str], Path]:
        """Flags of the command line and the run's folder for what the fields hold.

        Args:
            values: flag -> value of its field.

        Raises:
            MotionError: a field is empty, or names a file that is not there.
        """
        videos = str(values["videos"] or "").strip()
        if not videos:
            raise SettingsError("`videos` must name a folder of videos, got none. Enter its path.")
        name = str(values["name"] or "").strip() or Path(videos).name
        check_name(name)
        flags: dict[str, str] = {"videos": str(Path(videos).expanduser().absolute()), "name": name}
        flags["module"] = str(self._files.find("motion_module", values["module"] or "").absolute())
        flags["checkpoint"] = _checkpoint_file(values["checkpoint"])
        for field in FIELDS:
            if field.flag not in flags:
                flags |= _flag(field, values[field.flag])
        flags["lora-dir"] = str(lora_folders()[0].absolute())
        flags["device"] = devices.device.type if devices.device.type in ("cpu", "cuda", "mps") else "auto"
        return flags, Path(paths.data_path).absolute() / RUNS_FOLDER / name

    def run(self, values: tuple[Any, ...], *, check: bool) -> Iterator[tuple[Any, ...]]:
        """What the buttons "Check" and "Start" do: start the job, and show how it stands until it ends."""
        try:
            flags, folder = self.flags(dict(zip((field.flag for field in FIELDS), values, strict=True)))
            if not check:
                self._files.unload()
                devices.torch_gc()
            self._job.start(flags, folder, check=check)
        except MotionError as error:
            yield _error_html(str(error)), gr.update(), gr.update(), gr.update()
            return
        yield from self.watch()

    def watch(self) -> Iterator[tuple[Any, ...]]:
        """What the outputs show, again and again while the job runs; pictures only when they are new."""
        seen: dict[str, tuple[Path, int]] = {}
        while True:
            status = self._job.status()
            pictures = [_fresh(path, name, seen) for name, path in (("curve", status.curve), ("sheet", status.sheet))]
            yield status_html(status), status.report, *pictures
            if not status.running:
                return
            time.sleep(_SECONDS_BETWEEN_UPDATES)

    def _build(self) -> Any:
        controls: dict[str, Any] = {}
        with gr.Blocks(analytics_enabled=False) as tab:
            gr.Markdown(_INTRODUCTION)
            with gr.Row():
                with gr.Column(scale=6):
                    refresh = self._fields(controls)
                with gr.Column(scale=5):
                    with gr.Row():
                        check = gr.Button("Check dataset", elem_id=f"{ELEM_ID}_check")
                        start = gr.Button("Start", variant="primary", elem_id=f"{ELEM_ID}_start")
                        stop = gr.Button("Stop", elem_id=f"{ELEM_ID}_stop")
                        watch = gr.Button("Show progress", elem_id=f"{ELEM_ID}_watch")
                    status = gr.HTML(lambda: status_html(self._job.status()), elem_id=f"{ELEM_ID}_status")
                    curve = gr.Image(label="Loss", interactive=False, elem_id=f"{ELEM_ID}_curve")
                    sheet = gr.Image(label="Samples", interactive=False, elem_id=f"{ELEM_ID}_sheet")
                    report = gr.Textbox(label="Report", lines=6, interactive=False, elem_id=f"{ELEM_ID}_report")
            self._connect([controls[field.flag] for field in FIELDS], [status, report, curve, sheet], check, start)
            watch.click(self.watch, inputs=[], outputs=[status, report, curve, sheet], show_progress="hidden")
            stop.click(self._job.stop, inputs=[], outputs=[], queue=False)
            refresh.click(self._look_again, inputs=[], outputs=[controls["module"], controls["checkpoint"]])
        return tab

    def _connect(self, inputs: list[Any], outputs: list[Any], check: Any, start: Any) -> None:
        def run_check(*values: Any) -> Iterator[tuple[Any, ...]]:
            yield from self.run(values, check=True)

        def run_training(*values: Any) -> Iterator[tuple[Any, ...]]:
            yield from self.run(values, check=False)

        check.click(run_check, inputs=inputs, outputs=outputs, show_progress="hidden")
        start.click(run_training, inputs=inputs, outputs=outputs, show_progress="hidden")

    def _fields(self, controls: dict[str, Any]) -> Any:
        """Make all fields; the button that looks for files again."""
        specs = {field.flag: field for field in FIELDS}

        def add_rows(rows: tuple[tuple[str, ...], ...]) -> None:
            for row in rows:
                with gr.Row():
                    for flag in row:
                        controls[flag] = self._control(specs[flag])

        add_rows(_ROWS[:1])
        with gr.Row():
            for flag in _ROWS[1]:
                controls[flag] = self._control(specs[flag])
            refresh = ToolButton(value="🔄", elem_id=f"{ELEM_ID}_refresh")
        add_rows((*_ROWS[2:], *_CAPTION_ROWS))
        with gr.Accordion("More", open=False, elem_id=f"{ELEM_ID}_more"):
            add_rows(_MORE_ROWS)
        return refresh

    def _control(self, field: TrainField) -> Any:
        common = {
            "label": field.label,
            "info": field.info,
            "elem_id": f"{ELEM_ID}_{field.flag.replace('-', '_')}",
            "interactive": True,
        }
        if field.flag in ("module", "checkpoint"):
            names = self._files.names("motion_module") if field.flag == "module" else sd_models.checkpoint_tiles()
            return gr.Dropdown(choices=names, value=names[0] if names else None, **common)
        if isinstance(field.value, bool):
            return gr.Checkbox(value=field.value, **common)
        if isinstance(field.value, int):
            return gr.Number(value=field.value, precision=0, **common)
        if isinstance(field.value, float):
            return gr.Number(value=field.value, **common)
        return gr.Textbox(value=field.value, max_lines=1, **common)

    def _look_again(self) -> list[Any]:
        return [
            gr.update(choices=self._files.names("motion_module")),
            gr.update(choices=sd_models.checkpoint_tiles()),
        ]


def status_html(status: JobStatus) -> str:
    """Headline, bar and error of a job."""
    bar = ""
    if status.running and status.progress is not None and status.progress.steps:
        share = status.progress.step / status.progress.steps
        bar = f"<progress value='{share:.4f}' max='1' style='width:100%'></progress>"
    headline = html.escape(status.headline) if not status.error else ""
    return f"<p>{headline}</p>{bar}{_error_html(status.error) if status.error else ''}"


def _error_html(text: str) -> str:
    return f"<div class='error'>{html.escape(text)}</div>"


def _flag(field: TrainField, value: Any) -> dict[str, str]:
    """The field's flag as the command line wants it; nothing for one that is empty by its meaning."""
    if isinstance(field.value, bool):
        if field.flag == "gradient-checkpointing":
            return {field.flag if value else f"no-{field.flag}": ""}
        return {field.flag: ""} if value else {}
    text = str(value if value is not None else "").strip()
    if not text and field.flag == "default-caption":
        return {}
    if not text:
        raise SettingsError(f"`{field.flag}` must have a value, got none. Enter one, such as {field.value}.")
    return {field.flag: text}


def _checkpoint_file(title: Any) -> str:
    """Path of the checkpoint that the drop-down names."""
    info = sd_models.get_closet_checkpoint_match(title) if title else None
    if info is None:
        raise SettingsError(f"`checkpoint` must name a checkpoint of the list, got {title!r}. Choose one.")
    return str(Path(info.filename).absolute())


def _fresh(path: Path | None, name: str, seen: dict[str, tuple[Path, int]]) -> Any:
    """A picture, or "leave it as it is" where it was shown already."""
    try:
        stamp = (path, path.stat().st_mtime_ns) if path is not None else None
        if stamp is None or path is None or seen.get(name) == stamp:
            return gr.update()
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError:  # just being replaced
        return gr.update()
    seen[name] = stamp
    return picture
