"""`python -m motion svd`: clips of pictures from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from motion.checkpoints.svd_file import open_svd
from motion.errors import SettingsError
from motion.standalone.infotext_parser import quote
from motion.standalone.progress_bar import progress_bar
from motion.standalone.svd_flags import svd_settings_from
from motion.svd.networks import size_multiple
from motion.svd.pictures import as_picture
from motion.svd.pipeline import SvdPipeline
from motion.svd.settings import SvdSettings, check_size
from motion.video import check_formats, check_output_folder, save_clip

_PLAIN_NAMES = {"num_inference_steps": "Steps", "sampler": "Sampler", "seed": "Seed"}
"""Field -> infotext's name of it, where web UIs have one."""
_NOT_OF_THE_CLIP = ("width", "height", "num_videos_per_picture", "decode_chunk_size", "decode_overlap")


def animate(arguments: argparse.Namespace) -> None:
    """Make the clips that the command line asks for and print their files.

    Whatever can be told from the request and the files' heads is checked before gigabytes of weights are read.

    Raises:
        MotionError: something in the request or in a file can't work.
    """
    settings = svd_settings_from(arguments)
    formats = tuple(arguments.format.split("+"))
    check_formats(formats)
    check_output_folder(arguments.out)
    pictures = [read_picture(path) for path in arguments.image]
    with open_svd(arguments.weights) as svd:
        check_size(settings, size_multiple(svd.config))
        settings = dataclasses.replace(settings, num_frames=settings.num_frames or svd.config.num_frames)
    pipeline = SvdPipeline.from_file(arguments.weights, precision=arguments.precision)
    with progress_bar(settings.num_inference_steps * len(pictures) * settings.num_videos_per_picture) as bar:
        result = pipeline(pictures, settings, on_step=lambda done, total: bar.on_step(done, total, None))
    made = dataclasses.replace(settings, seed=result.seed)
    text = infotext(made, arguments.weights)
    _save(result.frames, made, text, formats, arguments)
    sys.stderr.write("".join(f"{note}\n" for note in result.notes))


def read_picture(path: Path) -> Image.Image:
    """A picture file in mode RGB, converted as `as_picture` says.

    Raises:
        SettingsError: it can't be read, or is too small.
    """
    try:
        with Image.open(path) as file:
            return as_picture(file)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SettingsError(f"`image` must be a picture, got {path}: {error}. Choose another file.") from error


def infotext(settings: SvdSettings, weights: Path) -> str:
    """Generation parameters in the form of web UIs, with all that makes the clip again from the same picture."""
    fields = {"Size": f"{settings.width}x{settings.height}", "SVD weights": weights.stem}
    for name, value in dataclasses.asdict(settings).items():
        if name not in _NOT_OF_THE_CLIP:
            fields[_PLAIN_NAMES.get(name, f"SVD {name.replace('_', ' ')}")] = value
    return ", ".join(f"{name}: {quote(value)}" for name, value in fields.items())


def _save(
    clips: Sequence[Sequence[Image.Image]],
    settings: SvdSettings,
    text: str,
    formats: tuple[str, ...],
    arguments: argparse.Namespace,
) -> None:
    for number, frames in enumerate(clips, start=1):
        which = f", SVD clip: {number} of {len(clips)}" if len(clips) > 1 else ""
        saved = save_clip(
            frames,
            arguments.out,
            stem=str(settings.seed),
            fps=Fraction(settings.fps),
            formats=formats,
            loop_count=arguments.loop_count,
            infotext=text + which,
        )
        sys.stdout.write("".join(f"{path}\n" for path in saved.files.values()))
        sys.stderr.write("".join(f"{note}\n" for note in saved.notes))
