"""The command line: `serve` opens the page, `render` makes one clip, `demo` makes one without any weights at hand,
`svd` animates pictures with Stable Video Diffusion, `inspect` says what a weight file is, `schedule` what each frame of
a prompt with keyframes shows, `train` makes motion LoRAs and the small models.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from motion.errors import MotionError
from motion.standalone.render_flags import add_settings_flags
from motion.standalone.svd_flags import add_svd_flags
from motion.standalone.train_flags import add_train_flags

EXIT_BAD_INPUT = 2
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m motion`."""
    parser = argparse.ArgumentParser(prog="python -m motion", description="Clips from Stable Diffusion checkpoints.")
    parser.add_argument("--verbose", action="store_true", help="log what happens")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{serve,render,svd,demo,inspect,schedule,train}"
    )
    _add_serve(commands.add_parser("serve", help="open the page in a browser"))
    _add_render(commands.add_parser("render", help="make one clip"))
    _add_svd(commands.add_parser("svd", help="animate pictures with Stable Video Diffusion"))
    _add_demo(commands.add_parser("demo", help="make a clip with small random weights, made on the spot"))
    _add_inspect(commands.add_parser("inspect", help="say what a weight file is and whether it can be used"))
    _add_schedule(commands.add_parser("schedule", help="say what each frame of a prompt with keyframes shows"))
    add_train_flags(commands.add_parser("train", help="train a motion LoRA from your own videos"))
    return parser


def _add_host_flags(parser: argparse.ArgumentParser, data_dir: Path | None, shown: str) -> None:
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="arithmetic of the networks")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=data_dir,
        help=f"folder of models/, outputs/, extensions/ and config.json (default: {shown})",
    )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_host_flags(parser, Path(), "here")
    parser.add_argument("--checkpoint-dir", type=Path, help="further folder of checkpoints")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    parser.add_argument("--api", action="store_true", help="the API is always there; the flag is other web UIs'")


def _add_render(parser: argparse.ArgumentParser) -> None:
    _add_host_flags(parser, Path(), "here")
    parser.add_argument("--checkpoint", type=Path, required=True, help="Stable Diffusion checkpoint file")
    parser.add_argument("--motion-module", type=Path, required=True, help="motion module file that fits it")
    add_settings_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder that receives the clip")


def _add_svd(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="arithmetic of the networks")
    parser.add_argument("--weights", type=Path, required=True, help="svd, svd_xt or svd_xt_1_1: file or folder")
    parser.add_argument("--image", type=Path, nargs="+", required=True, help="picture; each becomes a clip")
    add_svd_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder that receives the clips")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    _add_host_flags(parser, None, "demo/ beside the program")
    parser.add_argument("--out", type=Path, help="folder that receives the clip (default: outputs/ in the data folder)")
    parser.add_argument("prompt", nargs="*", help="what to show")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="weight file of any kind")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--family", help="take a motion module for one of this family, such as sd15_v2")


def _add_schedule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="the prompt, with its lines; - reads it from standard input")
    parser.add_argument("--frames", default="16", help="frames of the clip (default: 16)")
    parser.add_argument("--closed-loop", action="store_true", help="the last keyframe leads to the first")
    parser.add_argument("--negative", action="store_true", help="it is a negative prompt")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 (failed), 2 (bad input) or 130 (interrupted)."""
    arguments = build_parser().parse_args(argv)
    # Read when torch loads. Threads that wait asleep, not spinning, leave a busy machine's cores to those that work:
    # measured 11.3 s against 3.0 s for a step of the demo with two threads on two cores under load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(name)s: %(message)s")
    try:
        _run(arguments)
    except MotionError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return EXIT_BAD_INPUT if 400 <= error.status_code < 500 else EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    return 0


def _run(arguments: argparse.Namespace) -> None:
    # Each command imports what it needs when it runs: `--help` should not wait for torch and gradio.
    if arguments.command == "serve":
        from motion.standalone.server import serve

        serve(arguments)
    elif arguments.command == "render":
        from motion.standalone.render_command import render

        render(arguments)
    elif arguments.command == "svd":
        from motion.standalone.svd_command import animate

        animate(arguments)
    elif arguments.command == "inspect":
        from motion.standalone.inspect_command import inspect

        inspect(arguments)
    elif arguments.command == "schedule":
        from motion.standalone.schedule_command import schedule

        schedule(arguments)
    elif arguments.command == "train":
        from motion.standalone.train_command import train

        train(arguments)
    else:
        from motion.standalone.demo_command import demo

        demo(arguments)
