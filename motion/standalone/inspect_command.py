"""`python -m motion inspect`: what a weight file is."""

from __future__ import annotations

import argparse
import json
import sys

from motion.checkpoints.inspection import describe, inspect_file, sha256_of
from motion.checkpoints.registry import known_formats

JSON_KEYS = ("kind", "family", "base", "num_frames_trained", "max_frames", "parameters", "dtype", "usable", "reason")


def inspect(arguments: argparse.Namespace) -> None:
    """Print the report on the file that the command line names, as text or as one line of JSON.

    Raises:
        CheckpointError: there is no such file.
    """
    report = inspect_file(arguments.file, family=arguments.family, formats=known_formats())
    if arguments.json:
        sys.stdout.write(json.dumps({key: getattr(report, key) for key in JSON_KEYS}) + "\n")
        return
    digest = f"\n{'SHA-256:':<14}{sha256_of(arguments.file)}" if arguments.file.is_file() else ""
    sys.stdout.write(f"{describe(report)}{digest}\n")
