"""Flags of `python -m motion render`, made from the tables of settings so that defaults and bounds stand once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from motion.fields import FieldSpec
from motion.settings import field_default, field_specs
from motion.standalone.render_settings import RESIZE_MODES, RenderSettings

_HOST_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "prompt": "what to show",
        "negative_prompt": "what not to show",
        "steps": "sampling steps",
        "sampler": "name of a sampler",
        "scheduler": "schedule type",
        "cfg_scale": "strength of the prompt",
        "width": "pixels, a multiple of 8",
        "height": "pixels, a multiple of 8",
        "seed": "-1 draws one",
        "clip_skip": "layer of the text encoder to end at, counted from its end",
        "init_image": "picture to start from",
        "denoising_strength": "noise added to the picture, or to the clip before the hires pass",
        "resize_mode": "how the picture takes the size: " + ", ".join(f"{i} {m}" for i, m in enumerate(RESIZE_MODES)),
        "hires_scale": "size of the hires pass over the first's; 1 makes no hires pass",
        "hires_steps": "steps of the hires pass; 0 takes those of the first",
        "hires_upscaler": "name of the hires pass's upscaler",
    }
)
"""Field of RenderSettings -> help."""
_NAMES: Mapping[str, str] = MappingProxyType({"num_frames": "frames", "formats": "format"})
"""Field of MotionSettings -> flag, where they differ."""
_HELP: Mapping[str, str] = MappingProxyType(
    {"module_family": "Module family, such as sd15_v2. Only where the guess by the file's content and name is wrong."}
)
"""Field of MotionSettings -> help, where the page's text speaks of the page."""
_DEFAULTS: Mapping[str, str] = MappingProxyType({"formats": "MP4"})
_GIVEN_OTHERWISE = ("enabled", "motion_module")


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each setting of a render."""
    fields = {field.name: field for field in dataclasses.fields(RenderSettings)}
    for name, text in _HOST_FLAGS.items():
        field = fields[name]
        kind = Path if field.default is None else type(field.default)
        parser.add_argument(_flag(name), type=kind, default=field.default, help=_escaped(text + _bounds(field)))
    for name, spec in _motion_specs().items():
        if spec.control == "checkbox":
            parser.add_argument(_flag(name), action=argparse.BooleanOptionalAction, default=False, help=_help(spec))
            continue
        default = _DEFAULTS.get(name, str(field_default(name)))
        parser.add_argument(_flag(_NAMES.get(name, name)), default=default, help=_escaped(_HELP.get(name, _help(spec))))


def settings_from(arguments: argparse.Namespace) -> RenderSettings:
    """Checked settings of the `render` command.

    Raises:
        SettingsError: a value is out of range.
    """
    motion = {name: getattr(arguments, _NAMES.get(name, name)) for name in _motion_specs()}
    return RenderSettings.from_mapping({name: getattr(arguments, name) for name in _HOST_FLAGS} | {"motion": motion})


def _motion_specs() -> dict[str, FieldSpec]:
    return {name: spec for name, spec in field_specs().items() if name not in _GIVEN_OTHERWISE}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _bounds(field: dataclasses.Field[Any]) -> str:
    return f" ({field.metadata['minimum']:g} to {field.metadata['maximum']:.10g})" if field.metadata else ""


def _help(spec: FieldSpec) -> str:
    if spec.choices:
        joined = "; join several by +" if spec.control == "choices" else ""
        return f"{spec.label}: one of {', '.join(spec.choices)}{joined}. {spec.info}"
    bounds = "" if spec.minimum is None else f" ({spec.minimum:.10g} to {spec.maximum:.10g})"
    return f"{spec.label}{bounds}. {spec.info}"


def _escaped(text: str) -> str:
    """Argparse takes "%" for its own."""
    return text.replace("%", "%%")
