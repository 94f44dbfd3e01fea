"""Registers the extension's callbacks, once per load of the host's scripts (which clears them on "Reload UI")."""

from __future__ import annotations

from typing import Any

from modules import script_callbacks, shared

from motion.host.module_files import FOLDERS_OPTION
from motion.host.sample_hook import current_generation
from motion.host.script import MotionScript
from motion.host.train_tab import TrainTab
from motion.host.training_job import TrainingJob


def register() -> None:
    """Tell the host which of its events we follow. Called by the entry script each time the host loads it."""
    script_callbacks.on_cfg_denoiser(_on_cfg_denoiser)
    script_callbacks.on_ui_settings(_on_ui_settings)
    training = TrainingJob()
    script_callbacks.on_ui_tabs(TrainTab(MotionScript.files, training).tabs)
    script_callbacks.on_script_unloaded(training.close)
    script_callbacks.on_script_unloaded(MotionScript.files.unload)


def _on_ui_settings() -> None:
    shared.opts.add_option(
        FOLDERS_OPTION,
        shared.OptionInfo(
            "", "Further folders of motion modules and domain adapters, separated by ;", section=("motion", "Motion")
        ),
    )


def _on_cfg_denoiser(params: Any) -> None:
    """One denoiser step begins: tell the running generation how its rows are laid out."""
    denoiser = params.denoiser
    p = getattr(denoiser, "p", None)
    generation = current_generation(p) if p is not None else None
    if generation is not None:
        text = params.text_cond
        rows = next(iter(text.values())) if isinstance(text, dict) else text
        # Model calls, as the web UI counts them for prompt editing; `params.sampling_step` lags by one.
        calls = getattr(denoiser, "total_steps", None)
        generation.begin_step(rows.shape[0], params.x, (denoiser.step, calls) if calls else None)
