"""A data folder with small random weights, made once per test run, for tests that need whole files."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from motion.settings import MotionSettings
from motion.standalone.render_settings import RenderSettings
from tests import random_weights

CHECKPOINT = Path("models", "Stable-diffusion", "random.safetensors")
MOTION_MODULE = Path("models", "motion", "random-mm-v2.safetensors")


def made_files(tmp_path_factory):
    """(data folder, checkpoint, motion module)."""
    folder = tmp_path_factory.getbasetemp() / "demo-host"
    checkpoint, motion_module = folder / CHECKPOINT, folder / MOTION_MODULE
    if not motion_module.exists():
        for path in (checkpoint, motion_module):
            path.parent.mkdir(parents=True)
        checkpoint.with_suffix(".yaml").write_text(random_weights.checkpoint_config(), encoding="utf-8")
        save_file(random_weights.checkpoint_tensors(), checkpoint)
        save_file(random_weights.motion_module_tensors(), motion_module)
    return folder, checkpoint, motion_module


def small(motion=(), **fields):
    """Settings of a clip of 3 frames of 64 pixels in 2 steps."""
    shown = {"prompt": "a lighthouse", "steps": 2, "sampler": "Euler", "width": 64, "height": 64, "seed": 5}
    chosen = MotionSettings.from_mapping({"enabled": True, "num_frames": 3, **dict(motion)})
    return RenderSettings(**{**shown, **fields}, motion=chosen)
