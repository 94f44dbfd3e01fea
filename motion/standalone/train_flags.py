"""Flags of `python -m motion train`; their defaults and bounds stand in motion.training's settings."""

from __future__ import annotations

import argparse
from pathlib import Path

from motion.training.settings import PRECISIONS, TrainerSettings

MOTION_LORA, SHAPES = "motion-lora", "shapes"
DEVICES = ("auto", "cpu", "cuda", "mps")


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """Add the two things that can be trained, each with its flags."""
    what = parser.add_subparsers(dest="what", required=True, metavar=f"{{{MOTION_LORA},{SHAPES}}}")
    _add_motion_lora(what.add_parser(MOTION_LORA, help="a motion LoRA from your own videos"))
    _add_shapes(what.add_parser(SHAPES, help="small models of a world of moving shapes, from nothing"))


def _add_motion_lora(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    defaults = TrainerSettings()
    add("--videos", type=Path, required=True, help="folder of videos, or of folders of pictures, with captions")
    add("--module", type=Path, required=True, help="motion module that the LoRA is for, such as v3_sd15_mm.safetensors")
    add("--module-family", help="take the module for one of this family, such as sd15_v2")
    add("--checkpoint", type=Path, required=True, help="Stable Diffusion 1 checkpoint to train on")
    add("--out", type=Path, required=True, help="folder of the run; a run that was begun there is resumed")
    add("--name", help="of the LoRA's file (default: the name of the folder of videos)")
    add("--lora-dir", type=Path, help="put a copy of the finished LoRA there, such as a web UI's models/Lora")
    add("--rank", type=int, default=64, help="of the LoRA's matrices (default: %(default)s)")
    add("--steps", type=int, default=1000, help="optimiser steps (default: %(default)s)")
    add("--learning-rate", type=float, default=defaults.learning_rate, help="at its peak (default: %(default)s)")
    add("--size", default="256", help="pixels, such as 256 or 384x256, a multiple of 64 (default: %(default)s)")
    add("--frames", type=int, default=0, help="frames of a clip; 0 takes those that the module was trained on")
    add("--frame-stride", type=int, default=0, help="take every n-th frame; 0 comes near to 8 frames a second")
    add("--clips-per-video", type=int, default=1, help="clips to cut from each video (default: %(default)s)")
    add("--default-caption", help="caption of videos that have none in a .txt beside them")
    add("--skip-bad", action="store_true", help="leave out videos that can't be used")
    add("--batch-size", type=int, default=1, help="clips at a time (default: %(default)s)")
    add("--accumulation", type=int, default=1, help="batches that make one step (default: %(default)s)")
    add("--gradient-checkpointing", action=argparse.BooleanOptionalAction, default=True, help="save memory for time")
    add("--both-ways", action="store_true", help="play every other clip backwards, for which the LoRA counts as -1")
    add("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    add("--save-every", type=int, default=100, help="steps between states to resume from (default: %(default)s)")
    add("--sample-every", type=int, default=250, help="steps between sample sheets; 0 makes none (default: 250)")
    add("--anomaly", action="store_true", help="name the operation behind a bad gradient; several times slower")
    add("--check", action="store_true", help="only check the videos and estimate time and memory")
    add("--stop-at-end-of-input", action="store_true", help=argparse.SUPPRESS)  # a web UI's lifeline
    add_device_flags(parser)


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Where and in which format it computes."""
    parser.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="arithmetic of the networks; auto is bf16 or fp16 on a CUDA GPU, fp32 elsewhere",
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to compute (default: the best there is)"
    )


def _add_shapes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of all stages; what was begun there is resumed")
    parser.add_argument(
        "--stage",
        nargs="+",
        default=["all"],
        metavar="STAGE",
        help="stages to run, by name, or all, in their order (default: all)",
    )
