"""The one file that a web UI loads: hands it the script class of the package beside this folder."""

from pathlib import Path

import motion

if Path(motion.__file__).resolve().parent.parent != Path(__file__).resolve().parent.parent:
    raise ImportError(
        f"Motion: expected the package `motion` beside {Path(__file__).parent}, got {motion.__file__}. "
        "Remove the other copy of the extension (or the other package called motion) and restart."
    )

from motion.host import MotionScript, register

__all__ = ["MotionScript"]

register()
