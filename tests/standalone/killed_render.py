"""Renders as a process of its own that kills itself: `python -m tests.standalone.killed_render SETTINGS_JSON`."""

from __future__ import annotations

import json
import os
import signal
import sys

from motion.standalone import Pipeline


def render(folder: str, checkpoint: str, module: str, out: str, fields: dict[str, object], steps: int | None) -> None:
    """Render, and die once so many steps are done; None lives on."""

    def on_step(done: int, total: int, latents: object) -> None:
        if done == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    with Pipeline.from_files(checkpoint, motion_module=module, precision="fp32", data_dir=folder) as pipeline:
        pipeline(fields, on_step=on_step, output_dir=out)


if __name__ == "__main__":
    render(**json.loads(sys.argv[1]))
