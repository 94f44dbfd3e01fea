"""`python -m motion render`: one clip from the command line."""

from __future__ import annotations

import argparse
import sys

from motion.standalone.pipeline import Pipeline
from motion.standalone.progress_bar import progress_bar
from motion.standalone.render_flags import settings_from
from motion.video import check_output_folder


def render(arguments: argparse.Namespace) -> None:
    """Render the clip that the command line asks for and print its files.

    Raises:
        MotionError: something in the request or in a file can't work.
    """
    settings = settings_from(arguments)
    check_output_folder(arguments.out)
    with (
        Pipeline.from_files(
            arguments.checkpoint,
            arguments.motion_module,
            precision=arguments.precision,
            data_dir=arguments.data_dir,
        ) as pipeline,
        progress_bar(settings.steps) as bar,
    ):
        clip = pipeline(settings, on_step=bar.on_step, output_dir=arguments.out)
    sys.stdout.write("".join(f"{path}\n" for path in clip.files))
    sys.stderr.write("".join(f"{note}\n" for note in clip.notes))
