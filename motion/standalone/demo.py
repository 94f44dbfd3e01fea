"""`python -m motion demo`: a clip from weights made on the spot."""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from motion.errors import OutputError
from motion.standalone import demo_weights
from motion.standalone.clip import Clip
from motion.standalone.pipeline import EXTENSION_FOLDER, Pipeline
from motion.standalone.progress_bar import progress_bar
from motion.standalone.render_settings import RenderSettings
from motion.video import check_output_folder, contact_sheet
from motion.video.folder import output_error

DEFAULT_PROMPT = "coloured ink in water, slow motion"
NUM_FRAMES = 16


def demo(arguments: argparse.Namespace) -> None:
    """Make the weights if they aren't there, render a clip, say where it is and what it cost.

    Args:
        arguments: of the command line: out, data_dir, precision, prompt.

    Raises:
        MotionError: a folder can't be written to, no file of the clip could be made, or the render failed.
    """
    data_dir = (arguments.data_dir or EXTENSION_FOLDER / "demo").absolute()
    out = (arguments.out or data_dir / "outputs").absolute()
    check_output_folder(out)
    checkpoint, motion_module = demo_files(data_dir)
    settings = demo_settings(" ".join(arguments.prompt) or DEFAULT_PROMPT)
    with Pipeline.from_files(checkpoint, motion_module, precision=arguments.precision, data_dir=data_dir) as pipeline:
        began = time.perf_counter()
        with progress_bar(settings.steps) as bar:
            clip = pipeline(settings, on_step=bar.on_step, output_dir=out)
        seconds = time.perf_counter() - began
    report(clip, out, seconds, bar.seconds_per_step)


def demo_settings(prompt: str) -> RenderSettings:
    """A clip that two slow cores render in well under a minute.

    All frames start from one noise: the demo's weights can't hold unrelated frames together as trained ones do.
    """
    motion = {"num_frames": NUM_FRAMES, "formats": ("MP4", "GIF"), "seed_behaviour": "same for all frames"}
    return RenderSettings(
        prompt=prompt, steps=8, sampler="Euler", cfg_scale=5.0, width=192, height=128, seed=7, motion=motion
    )


def demo_files(data_dir: Path) -> tuple[Path, Path]:
    """(checkpoint, motion module) under `data_dir`/models; made if they aren't there.

    Raises:
        OutputError: the folder can't be written to.
    """
    name = f"motion-demo-{demo_weights.VERSION}"
    checkpoint = data_dir / "models" / "Stable-diffusion" / f"{name}.safetensors"
    config = checkpoint.with_suffix(".yaml")
    motion_module = data_dir / "models" / "motion" / f"{name}-mm-v2.safetensors"
    _make(config, lambda path: path.write_text(demo_weights.checkpoint_config(), encoding="utf-8"))
    _make(checkpoint, lambda path: save_file(demo_weights.checkpoint_tensors(), path))
    _make(motion_module, lambda path: save_file(demo_weights.motion_module_tensors(), path))
    return checkpoint, motion_module


def _make(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name first, so that a killed run never leaves half of one."""
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".unfinished-{uuid.uuid4().hex}{path.suffix}")
        try:
            write(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(error, f"The demo's weights must be written to {path.parent}") from error


def report(clip: Clip, out: Path, seconds: float, seconds_per_step: float) -> None:
    """Say where the clip is and what it cost; writes the contact sheet beside it.

    Raises:
        OutputError: the clip has no file, or the sheet can't be written.
    """
    if not clip.files:
        raise OutputError(f"No clip was written to {out}. {' '.join(clip.notes)}", status_code=500)
    sheet = clip.files[0].with_name(f"{clip.files[0].stem}-contact-sheet.png")
    try:
        contact_sheet(list(clip.frames)).save(sheet)
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
