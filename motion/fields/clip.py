"""Fields of the clip as a whole."""

from __future__ import annotations

from motion.fields.parsing import (
    FieldSpec,
    parse_bool,
    parse_choice,
    parse_choices,
    parse_integer,
    parse_number,
    parse_rate,
    parse_text,
)

MAX_FRAMES = 4096
FORMATS = ("MP4", "GIF", "PNG")
SEED_BEHAVIOURS = ("per frame", "same for all frames", "repeated", "FreeNoise")

CLIP_FIELDS = {
    "enabled": FieldSpec(
        parse_bool, control="checkbox", label="Motion", infotext="Motion", info="Make a clip instead of images."
    ),
    "motion_module": FieldSpec(
        parse_text,
        control="module",
        label="Motion module",
        infotext="Motion module",
        info="AnimateDiff weights that fit the checkpoint; put files into models/motion.",
    ),
    "num_frames": FieldSpec(
        parse_integer,
        control="integer",
        label="Number of frames",
        infotext="Motion frames",
        info="Modules were trained on 16 frames; longer clips run in windows.",
        minimum=1,
        maximum=MAX_FRAMES,
        step=1,
    ),
    "fps": FieldSpec(
        parse_rate,
        control="number",
        label="Frames per second",
        infotext="Motion fps",
        info="Exact; fractions such as 24000/1001 work.",
        minimum=0.25,  # exact in binary, so that the bound itself is allowed
        maximum=240,
    ),
    "loop_count": FieldSpec(
        parse_integer,
        control="integer",
        label="GIF loops",
        infotext="Motion loops",
        info="How often a GIF plays; 0 is for ever.",
        minimum=0,
        maximum=65535,
        step=1,
    ),
    "formats": FieldSpec(
        parse_choices,
        control="choices",
        label="Save as",
        infotext="Motion formats",
        info="PNG keeps the single frames.",
        choices=FORMATS,
    ),
    "motion_scale": FieldSpec(
        parse_number,
        control="slider",
        label="Motion scale",
        infotext="Motion scale",
        info="Strength of the motion; 0 makes stills.",
        minimum=0.0,
        maximum=2.0,
        step=0.05,
    ),
    "seed_behaviour": FieldSpec(
        parse_choice,
        control="choice",
        label="Seed of the frames",
        infotext="Motion seeds",
        info="Per frame: seed, seed + 1, …; beyond a window, repeated and FreeNoise take its seeds again, or shuffled.",
        choices=SEED_BEHAVIOURS,
    ),
}
