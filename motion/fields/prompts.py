"""Fields of prompts that travel."""

from __future__ import annotations

from motion.fields.parsing import (
    FieldSpec,
    parse_choice,
)

PROMPT_INTERPOLATIONS = ("slerp", "lerp")

PROMPT_FIELDS = {
    "prompt_interpolation": FieldSpec(
        parse_choice,
        control="choice",
        label="Between keyframes",
        infotext="Motion prompt travel",
        info="How frames between two keyframes of the prompt are made of both.",
        choices=PROMPT_INTERPOLATIONS,
    ),
}
