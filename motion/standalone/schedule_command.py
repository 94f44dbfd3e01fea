"""`python -m motion schedule`: what each frame of a travelling prompt shows."""

from __future__ import annotations

import argparse
import json
import sys

from motion.conditioning.prompt_schedule import PromptSchedule, resolve
from motion.conditioning.prompt_travel import check_travel, read_prompt
from motion.settings import MotionSettings


def schedule(arguments: argparse.Namespace) -> None:
    """Print the schedule of the prompt that the command line names, as text or as one line of JSON.

    Raises:
        SettingsError: a malformed line, or one that the clip has no place for.
    """
    settings = MotionSettings.from_mapping({"num_frames": arguments.frames, "closed_loop": arguments.closed_loop})
    text = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    prompt = read_prompt(text)
    check_travel(prompt, is_negative=arguments.negative)
    resolved = resolve(prompt, settings.num_frames, closed_loop=settings.closed_loop)
    sys.stdout.write((json.dumps(_as_json(resolved)) if arguments.json else resolved.describe()) + "\n")


def _as_json(resolved: PromptSchedule) -> dict[str, object]:
    """Keyframes' prompts; and of each frame two of them, by index, with the share of the second."""
    frames = [[blend.first, blend.second, blend.share] for blend in resolved.frames]
    return {"prompts": resolved.prompts, "frames": frames, "cfg": resolved.cfg, "motion": resolved.motion}
