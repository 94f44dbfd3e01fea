"""`python -m motion demo`: a clip from the small models that come with the program."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from motion.errors import OutputError
from motion.settings import MotionSettings
from motion.standalone.clip import Clip
from motion.standalone.demo_files import MOTION_MODULE, copy_demo_files
from motion.standalone.pipeline import EXTENSION_FOLDER, Pipeline
from motion.standalone.progress_bar import progress_bar
from motion.standalone.render_settings import RenderSettings
from motion.video import check_output_folder, contact_sheet
from motion.video.folder import output_error

DEFAULT_PROMPT = "a red circle moving right on a blue background"
DEMO_MOTION = MotionSettings(enabled=True, motion_module=MOTION_MODULE.name, num_frames=16, formats=("MP4", "GIF"))
_SHEET_WIDTH = 192


def demo(arguments: argparse.Namespace) -> None:
    """Render a clip with the shipped models, say where it is and what it cost.

    Args:
        arguments: of the command line: out, data_dir, precision, prompt.

    Raises:
        MotionError: a folder can't be written to, no file of the clip could be made, or the render failed.
    """
    data_dir = (arguments.data_dir or EXTENSION_FOLDER / "demo").absolute()
    out = (arguments.out or data_dir / "outputs").absolute()
    check_output_folder(out)
    checkpoint, motion_module = copy_demo_files(data_dir)
    settings = demo_settings(" ".join(arguments.prompt) or DEFAULT_PROMPT)
    with Pipeline.from_files(checkpoint, motion_module, precision=arguments.precision, data_dir=data_dir) as pipeline:
        began = time.perf_counter()
        with progress_bar(settings.steps) as bar:
            clip = pipeline(settings, on_step=bar.on_step, output_dir=out)
        seconds = time.perf_counter() - began
    report(clip, out, seconds, bar.seconds_per_step)


def demo_settings(prompt: str) -> RenderSettings:
    """A clip of the size and length that the shipped models were trained on, in seconds on two cores."""
    return RenderSettings(
        prompt=prompt, steps=20, sampler="DDIM", cfg_scale=4.0, width=64, height=64, seed=0, motion=DEMO_MOTION
    )


def report(clip: Clip, out: Path, seconds: float, seconds_per_step: float) -> None:
    """Say where the clip is and what it cost; writes the contact sheet beside it.

    Raises:
        OutputError: the clip has no file, or the sheet can't be written.
    """
    if not clip.files:
        raise OutputError(f"No clip was written to {out}. {' '.join(clip.notes)}", status_code=500)
    sheet = clip.files[0].with_name(f"{clip.files[0].stem}-contact-sheet.png")
    try:
        contact_sheet(list(clip.frames), frame_width=_SHEET_WIDTH).save(sheet)
    except OSError as error:
        raise output_error(error, f"The contact sheet must be written to {out}") from error
    lines = [f"{path.suffix.lstrip('.').upper() + ':':<15}{path}" for path in clip.files]
    lines += [
        f"{'Contact sheet:':<15}{sheet}",
        f"{len(clip)} frames in {seconds:.1f} s, {seconds_per_step:.2f} s per step, peak memory {peak_memory()}.",
        *clip.notes,
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def peak_memory() -> str:
    """Most memory that this process has held at a time, in words."""
    if sys.platform == "win32":
        return "unknown"
    import resource

    units = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units / 2**20:.0f} MiB"
