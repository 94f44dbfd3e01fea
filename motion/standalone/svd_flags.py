"""Flags of `python -m motion svd`, made from the settings' tables so that defaults and bounds stand once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from motion.svd.settings import CHOICES, NUMBER_BOUNDS, SvdSettings

_HELP: Mapping[str, str] = MappingProxyType(
    {
        "width": "pixels, a multiple of 64",
        "height": "pixels, a multiple of 64",
        "num_frames": "frames of a clip; as many as the weights were trained with (14 or 25) where it is left out",
        "num_inference_steps": "sampling steps",
        "sampler": "sampler",
        "guidance": "how guidance differs from frame to frame",
        "min_guidance_scale": "guidance of the first frame",
        "max_guidance_scale": "guidance of the last frame, or of the middle one in a triangle",
        "fps": "frames a second; the weights know 5 to 30",
        "motion_bucket_id": "how much moves",
        "noise_aug_strength": "noise on the picture; more moves more freely",
        "fit": "what becomes of a picture of other proportions",
        "seed": "of all noise; drawn where it is left out",
        "num_videos_per_picture": "clips of each picture",
        "decode_chunk_size": "frames that are decoded at once; fewer need less memory",
        "decode_overlap": "frames on either side of these that the decoder sees beside them",
    }
)
"""Field of SvdSettings -> help."""
_NAMES: Mapping[str, str] = MappingProxyType({"num_frames": "frames", "num_inference_steps": "steps"})
"""Field -> flag, where they differ: as in `render`."""
_DEFAULTS: Mapping[str, int] = MappingProxyType({"decode_chunk_size": 8})
"""Field -> default, where it is not that of Python."""


def add_svd_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each setting of image to video, and those of the clip's files."""
    for field in dataclasses.fields(SvdSettings):
        default = _DEFAULTS.get(field.name, field.default)
        shown = f"{_HELP[field.name]} ({_allowed(field.name)}{'' if default is None else f'; default: {default}'})"
        kind = float if isinstance(field.default, float) else str if field.name in CHOICES else int
        parser.add_argument("--" + _flag(field.name), type=kind, default=default, help=shown)
    parser.add_argument("--format", default="MP4", help="MP4, GIF or PNG; join several by + (default: MP4)")
    parser.add_argument("--loop-count", type=int, default=0, help="how often a GIF plays; 0 is for ever")


def svd_settings_from(arguments: argparse.Namespace) -> SvdSettings:
    """Checked settings of the `svd` command.

    Raises:
        SettingsError: a value is out of range.
    """
    names = [field.name for field in dataclasses.fields(SvdSettings)]
    return SvdSettings(**{name: getattr(arguments, _NAMES.get(name, name)) for name in names})


def _flag(name: str) -> str:
    return _NAMES.get(name, name).replace("_", "-")


def _allowed(name: str) -> str:
    if name in CHOICES:
        return ", ".join(CHOICES[name])
    low, high = NUMBER_BOUNDS[name]
    return f"{low:g} to {high:.10g}"
