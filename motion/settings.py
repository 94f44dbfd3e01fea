"""The frozen settings of a request, read from the UI, the API or an infotext by the one table of fields."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from motion.errors import SettingsError
from motion.fields import FIELDS, FieldSpec
from motion.fields.clip import FORMATS, SEED_BEHAVIOURS
from motion.fields.module import BETA_SCHEDULES
from motion.fields.noise import FREEINIT_FILTERS
from motion.fields.prompts import PROMPT_INTERPOLATIONS
from motion.fields.windows import CONTEXT_SCHEDULES, FUSE_METHODS, WINDOW_SCOPES

__all__ = [
    "BETA_SCHEDULES",
    "CONTEXT_SCHEDULES",
    "FORMATS",
    "FREEINIT_FILTERS",
    "FUSE_METHODS",
    "PROMPT_INTERPOLATIONS",
    "SEED_BEHAVIOURS",
    "WINDOW_SCOPES",
    "MotionSettings",
    "field_default",
    "field_specs",
]


@dataclass(frozen=True)
class MotionSettings:
    """What a request asks for. The order of the fields is the order of the script's positional arguments.

    Attributes:
        enabled: make a clip; everything else is ignored when false.
        motion_module: name or path of the motion module file.
        num_frames: frames of the clip.
        fps: frames a second, exact.
        loop_count: how often a GIF plays; 0 is for ever.
        formats: what to write, of FORMATS.
        motion_scale: strength of the temporal branch; 0 makes stills, bit-identical to no module.
        seed_behaviour: "per frame": frame i starts from the noise of seed + i, as the host's batches do;
            "same for all frames": every frame starts from the noise of the clip's seed; "repeated": frames beyond the
            first window start from its noise again; "FreeNoise": the same, shuffled.
        module_family: id of the family to take the module for; "auto" lets the file's content decide, and its name
            where content can't.
        beta_schedule: noise schedule that the sampler reads; "auto" is the module's, "host" the web UI's own.
        motion_loras: tags such as "<lora:pan:0.8> <lora:zoom:-1@0-7>", beside those in the prompt.
        domain_adapter: name or path of a domain adapter file; empty for none.
        domain_adapter_strength: α of the adapter.
        context_length: frames of the windows in which a longer clip runs; 0 is what the module was trained on.
        context_overlap: frames that neighbouring windows share; -1 is a quarter of the window.
        context_stride: how many sets of windows of every 1st, 2nd, 4th, … frame run in each step.
        closed_loop: the clip's last frame leads to its first.
        context_schedule: where windows lie, of CONTEXT_SCHEDULES.
        fuse_method: what a window counts for each of its frames, of FUSE_METHODS.
        window_scope: what runs in windows, of WINDOW_SCOPES: the temporal attention, in which all else runs once per
            frame, or the whole UNet, in the memory of one window; "auto" is the first where memory suffices.
        prompt_interpolation: how a frame between two keyframes of a prompt is made of both, of PROMPT_INTERPOLATIONS.
        frame_seeds: one seed for each frame, with blanks between them, or nothing.
        freeinit_iterations: how often the clip is sampled; 1 is without FreeInit.
        freeinit_coarse_to_fine: iterations but the last one take fewer steps.
        freeinit_filter: what counts as a low frequency, of FREEINIT_FILTERS.
        freeinit_order: steepness of the filter "butterworth".
        freeinit_d_s: where low frequencies stop along height and width, in units of half the axis.
        freeinit_d_t: where they stop along the frames.
        motion_scale_frames: factors on `motion_scale`: one, one for each frame, or keyframes such as "0: 1, -1: 0.3".
        motion_start: share of a pass's steps after which the temporal branch runs.
        motion_end: share of them after which it does no more.
        decode_chunk_size: frames that are decoded at once; 0 is what suits the web UI.
        resume: keep the UNet's predictions on disk until the clip is finished, and go on from those that are there.
    """

    enabled: bool = False
    motion_module: str = ""
    num_frames: int = 16
    fps: Fraction = Fraction(8)
    loop_count: int = 0
    formats: tuple[str, ...] = ("MP4", "GIF")
    motion_scale: float = 1.0
    seed_behaviour: str = "per frame"
    module_family: str = "auto"
    beta_schedule: str = "auto"
    motion_loras: str = ""
    domain_adapter: str = ""
    domain_adapter_strength: float = 1.0
    context_length: int = 0
    context_overlap: int = -1
    context_stride: int = 1
    closed_loop: bool = False
    context_schedule: str = "uniform"
    fuse_method: str = "pyramid"
    window_scope: str = "auto"
    prompt_interpolation: str = "slerp"
    frame_seeds: str = ""
    freeinit_iterations: int = 1
    freeinit_coarse_to_fine: bool = False
    freeinit_filter: str = "butterworth"
    freeinit_order: int = 4
    freeinit_d_s: float = 0.25
    freeinit_d_t: float = 0.25
    motion_scale_frames: str = ""
    motion_start: float = 0.0
    motion_end: float = 1.0
    decode_chunk_size: int = 0
    resume: bool = False

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> MotionSettings:
        """Checked settings from raw values by field name; missing fields take their defaults.

        Raises:
            SettingsError: unknown field, wrong type, or a value out of range.
        """
        specs = field_specs()
        _refuse_unknown(mapping, list(specs))
        return cls(**{name: specs[name].parse(specs[name], name, value) for name, value in mapping.items()})

    @classmethod
    def from_arguments(cls, arguments: Sequence[Any]) -> MotionSettings:
        """Settings from a script's positional arguments: UI values in field order, or one mapping first (API).

        Where `enabled` is false, the values of the other fields don't matter and aren't looked at: half-typed numbers
        in a closed accordion must not stop a picture.
        """
        names = list(field_specs())
        if arguments and isinstance(arguments[0], Mapping):
            mapping = arguments[0]
        elif len(arguments) <= len(names):
            mapping = dict(zip(names, arguments, strict=False))
        else:
            raise SettingsError(f"Expected at most {len(names)} arguments, got {len(arguments)}. Pass one mapping.")
        _refuse_unknown(mapping, names)
        switch = cls.from_mapping({name: value for name, value in mapping.items() if name == "enabled"})
        return cls.from_mapping(mapping) if switch.enabled else cls()

    def to_infotext(self) -> dict[str, str]:
        """Infotext key -> value, for every field that has a key and isn't empty."""
        specs = {name: spec for name, spec in field_specs().items() if spec.infotext}
        texts = {spec.infotext: _as_text(getattr(self, name)) for name, spec in specs.items()}
        return {key: text for key, text in texts.items() if text}

    @classmethod
    def from_infotext(cls, parameters: Mapping[str, Any]) -> MotionSettings:
        """Settings from parsed infotext; keys that are not ours are ignored.

        Raises:
            SettingsError: one of our keys holds a bad value.
        """
        specs = field_specs()
        found = {n: parameters[spec.infotext] for n, spec in specs.items() if spec.infotext in parameters}
        return cls.from_mapping(found)


def _refuse_unknown(mapping: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in mapping:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else "Remove it."
            raise SettingsError(f"Unknown field `{name}`; known are {', '.join(known)}. {hint}")


def field_specs() -> dict[str, FieldSpec]:
    """Field name -> spec, in the order of the positional arguments."""
    return {field.name: FIELDS[field.name] for field in dataclasses.fields(MotionSettings)}


def field_default(name: str) -> Any:
    """Default value of field `name`."""
    return getattr(MotionSettings(), name)


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    if isinstance(value, float):
        return json.dumps(value)
    return str(value)
