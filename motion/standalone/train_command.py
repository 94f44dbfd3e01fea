"""`python -m motion train`: a motion LoRA from a user's videos, or small models of a world of moving shapes."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from motion.errors import SettingsError
from motion.models.precision import choose_precision
from motion.standalone.train_bar import TrainBar
from motion.standalone.train_flags import MOTION_LORA
from motion.standalone.train_lora import train_motion_lora
from motion.training import shapes_recipe as recipe
from motion.training.shapes_stages import SHAPES_TASKS, ShapesFolder
from motion.training.trainer import Trainer


def train(arguments: argparse.Namespace) -> None:
    """Train what the command line asks for.

    Raises:
        MotionError: something in the request, the data or the folder can't work.
        KeyboardInterrupt: the user pressed Ctrl-C; the state is saved.
    """
    _obey_interrupts()
    if arguments.what == MOTION_LORA:
        train_motion_lora(arguments, choose_precision("fp32", device=arguments.device).device)
    else:
        train_shapes(arguments.out, arguments.stage)


def _obey_interrupts() -> None:
    """A shell's background job ignores Ctrl-C, and so does all that it starts; a training is stopped by it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train_shapes(out: Path, stages: list[str]) -> None:
    """Train stages of the shapes models, in the recipe's order; one that is done already only writes its files again.

    Args:
        out: folder of all stages.
        stages: their names, or "all".

    Raises:
        MotionError: an unknown stage, one that needs another first, or a folder that can't be used.
    """
    unknown = [name for name in stages if name not in recipe.STAGES and name != "all"]
    if unknown:
        raise SettingsError(
            f"`stage` must be all or some of {', '.join(recipe.STAGES)}, got {unknown[0]!r}. Choose from these."
        )
    folder = ShapesFolder(out)
    for name, stage in recipe.STAGES.items():
        if name not in stages and "all" not in stages:
            continue
        sys.stderr.write(f"{name}: preparing\n")
        bar = TrainBar(name, stage.trainer.steps)
        run = folder.run(name)
        trainer = Trainer(SHAPES_TASKS[name](folder), stage.trainer, run, on_progress=bar.on_progress)
        try:
            with bar.shown(trainer.step):
                is_done = trainer.run()
        except KeyboardInterrupt:
            sys.stderr.write(f"{stopped_text(trainer.step, stage.trainer.steps)}\n")
            raise
        if not is_done:
            sys.stderr.write(f"{stopped_text(trainer.step, stage.trainer.steps)}\n")
            return
        sys.stdout.write(f"{name}: {run.path}\n")


def stopped_text(step: int, steps: int) -> str:
    """What to say of a run that was stopped."""
    return f"Stopped after step {step} of {steps}; the state is saved. Run the same command again to resume."
