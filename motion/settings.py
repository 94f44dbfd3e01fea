"""The one table of fields that the UI, the API and the infotext share, and the frozen settings made from it."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from motion.errors import SettingsError
from motion.field_parsing import (
    FieldSpec,
    parse_bool,
    parse_choice,
    parse_choices,
    parse_integer,
    parse_number,
    parse_rate,
    parse_tags,
    parse_text,
)

MAX_FRAMES = 4096
FORMATS = ("MP4", "GIF", "PNG")
SEED_BEHAVIOURS = ("per frame", "same for all frames")
CONTEXT_SCHEDULES = ("uniform", "looped", "static", "batched", "views")
FUSE_METHODS = ("pyramid", "flat", "relative", "overlap-linear", "gaussian")
PROMPT_INTERPOLATIONS = ("slerp", "lerp")
BETA_SCHEDULES = ("auto", "host", "linear", "scaled linear", "SDXL 0.020")


def _field(default: Any, parse: Callable[[FieldSpec, str, Any], Any], **spec: Any) -> Any:
    return dataclasses.field(default=default, metadata={"spec": FieldSpec(parse, **spec)})


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
            "same for all frames": every frame starts from the noise of the clip's seed.
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
        prompt_interpolation: how a frame between two keyframes of a prompt is made of both, of PROMPT_INTERPOLATIONS.
    """

    enabled: bool = _field(
        False, parse_bool, control="checkbox", label="Motion", infotext="Motion", info="Make a clip instead of images."
    )
    motion_module: str = _field(
        "",
        parse_text,
        control="module",
        label="Motion module",
        infotext="Motion module",
        info="AnimateDiff weights that fit the checkpoint; put files into models/motion.",
    )
    num_frames: int = _field(
        16,
        parse_integer,
        control="integer",
        label="Number of frames",
        infotext="Motion frames",
        info="Modules were trained on 16 frames; longer clips run in windows.",
        minimum=1,
        maximum=MAX_FRAMES,
        step=1,
    )
    fps: Fraction = _field(
        Fraction(8),
        parse_rate,
        control="number",
        label="Frames per second",
        infotext="Motion fps",
        info="Exact; fractions such as 24000/1001 work.",
        minimum=0.25,  # exact in binary, so that the bound itself is allowed
        maximum=240,
    )
    loop_count: int = _field(
        0,
        parse_integer,
        control="integer",
        label="GIF loops",
        infotext="Motion loops",
        info="How often a GIF plays; 0 is for ever.",
        minimum=0,
        maximum=65535,
        step=1,
    )
    formats: tuple[str, ...] = _field(
        ("MP4", "GIF"),
        parse_choices,
        control="choices",
        label="Save as",
        infotext="Motion formats",
        info="PNG keeps the single frames.",
        choices=FORMATS,
    )
    motion_scale: float = _field(
        1.0,
        parse_number,
        control="slider",
        label="Motion scale",
        infotext="Motion scale",
        info="Strength of the motion; 0 makes stills.",
        minimum=0.0,
        maximum=2.0,
        step=0.05,
    )
    seed_behaviour: str = _field(
        "per frame",
        parse_choice,
        control="choice",
        label="Seed of the frames",
        infotext="Motion seeds",
        info="Per frame: seed, seed + 1, …, as a batch of images.",
        choices=SEED_BEHAVIOURS,
    )
    module_family: str = _field(
        "auto",
        parse_text,
        control="family",
        label="Module family",
        infotext="Motion family",
        info="Only where the guess shown above is wrong.",
    )
    beta_schedule: str = _field(
        "auto",
        parse_choice,
        control="choice",
        label="Noise schedule",
        infotext="Motion schedule",
        info="auto is the schedule of the module's training.",
        choices=BETA_SCHEDULES,
    )
    motion_loras: str = _field(
        "",
        parse_tags,
        control="loras",
        label="Motion LoRAs",
        infotext="Motion LoRAs",
        info="<lora:name:weight>, weight -2 to 2; @0-7 after the weight limits it to frames. Works in the prompt too.",
    )
    domain_adapter: str = _field(
        "",
        parse_text,
        control="adapter",
        label="Domain adapter",
        infotext="Motion adapter",
        info="Such as v3_sd15_adapter: keeps the training videos' look out of the frames.",
    )
    domain_adapter_strength: float = _field(
        1.0,
        parse_number,
        control="slider",
        label="Adapter strength",
        infotext="Motion adapter strength",
        info="0 leaves the adapter out.",
        minimum=0.0,
        maximum=2.0,
        step=0.05,
    )

    context_length: int = _field(
        0,
        parse_integer,
        control="integer",
        label="Window length",
        infotext="Motion window",
        info="Longer clips run in windows of so many frames; 0 is what the module was trained on.",
        minimum=0,
        maximum=256,
        step=1,
    )
    context_overlap: int = _field(
        -1,
        parse_integer,
        control="integer",
        label="Window overlap",
        infotext="Motion overlap",
        info="Frames that neighbouring windows share; -1 is a quarter of the window.",
        minimum=-1,
        maximum=255,
        step=1,
    )
    context_stride: int = _field(
        1,
        parse_integer,
        control="integer",
        label="Window stride",
        infotext="Motion stride",
        info="Above 1, windows of every 2nd, 4th, … frame run too, which ties distant frames together.",
        minimum=1,
        maximum=8,
        step=1,
    )
    closed_loop: bool = _field(
        False,
        parse_bool,
        control="checkbox",
        label="Closed loop",
        infotext="Motion closed loop",
        info="The last frame leads to the first.",
    )
    context_schedule: str = _field(
        "uniform",
        parse_choice,
        control="choice",
        label="Window schedule",
        infotext="Motion windows",
        info="uniform moves the windows' borders in each step, static and batched don't.",
        choices=CONTEXT_SCHEDULES,
    )
    fuse_method: str = _field(
        "pyramid",
        parse_choice,
        control="choice",
        label="Window weights",
        infotext="Motion window weights",
        info="How overlapping windows are blended.",
        choices=FUSE_METHODS,
    )
    prompt_interpolation: str = _field(
        "slerp",
        parse_choice,
        control="choice",
        label="Between keyframes",
        infotext="Motion prompt travel",
        info="How frames between two keyframes of the prompt are made of both.",
        choices=PROMPT_INTERPOLATIONS,
    )

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
        """Infotext key -> value, for every field that isn't empty."""
        texts = {spec.infotext: _as_text(getattr(self, name)) for name, spec in field_specs().items()}
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
    return {field.name: field.metadata["spec"] for field in dataclasses.fields(MotionSettings)}


def field_default(name: str) -> Any:
    """Default value of field `name`."""
    return getattr(MotionSettings(), name)


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(value)
    if isinstance(value, float):
        return json.dumps(value)
    return str(value)
