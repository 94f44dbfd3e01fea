"""Fields of how strong the motion is, frame by frame and step by step."""

from __future__ import annotations

from motion.fields.parsing import FieldSpec, parse_number, parse_scales

STRENGTH_FIELDS = {
    "motion_scale_frames": FieldSpec(
        parse_scales,
        control="text",
        label="Motion scale per frame",
        infotext="Motion scale per frame",
        info="Multiplies Motion scale: 1.2, a value for each frame (1, 0.8, …), or keyframes (0: 1, 0.5: 0.3, -1: 1).",
    ),
    "motion_start": FieldSpec(
        parse_number,
        control="slider",
        label="Motion start",
        infotext="Motion start",
        info="Share of the steps after which motion begins; frames are stills until then.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    ),
    "motion_end": FieldSpec(
        parse_number,
        control="slider",
        label="Motion end",
        infotext="Motion end",
        info="Share of the steps after which motion ends.",
        minimum=0.0,
        maximum=1.0,
        step=0.01,
    ),
}
