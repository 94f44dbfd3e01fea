"""The demo's small weights, made once per test run, for tests that need whole files."""

from __future__ import annotations

from motion.settings import MotionSettings
from motion.standalone.demo import demo_files
from motion.standalone.render_settings import RenderSettings


def made_files(tmp_path_factory):
    """(data folder, checkpoint, motion module)."""
    folder = tmp_path_factory.getbasetemp() / "demo-host"
    return (folder, *demo_files(folder))


def small(motion=(), **fields):
    """Settings of a clip of 3 frames of 64 pixels in 2 steps."""
    shown = {"prompt": "a lighthouse", "steps": 2, "sampler": "Euler", "width": 64, "height": 64, "seed": 5}
    chosen = MotionSettings.from_mapping({"enabled": True, "num_frames": 3, **dict(motion)})
    return RenderSettings(**{**shown, **fields}, motion=chosen)
