"""Fields of the motion module and of what is merged into it."""

from __future__ import annotations

from motion.fields.parsing import (
    FieldSpec,
    parse_choice,
    parse_number,
    parse_tags,
    parse_text,
)

BETA_SCHEDULES = ("auto", "host", "linear", "scaled linear", "SDXL 0.020")

MODULE_FIELDS = {
    "module_family": FieldSpec(
        parse_text,
        control="family",
        label="Module family",
        infotext="Motion family",
        info="Only where the guess shown above is wrong.",
    ),
    "beta_schedule": FieldSpec(
        parse_choice,
        control="choice",
        label="Noise schedule",
        infotext="Motion schedule",
        info="auto is the schedule of the module's training.",
        choices=BETA_SCHEDULES,
    ),
    "motion_loras": FieldSpec(
        parse_tags,
        control="loras",
        label="Motion LoRAs",
        infotext="Motion LoRAs",
        info="<lora:name:weight>, weight -2 to 2; @0-7 after the weight limits it to frames. Works in the prompt too.",
    ),
    "domain_adapter": FieldSpec(
        parse_text,
        control="adapter",
        label="Domain adapter",
        infotext="Motion adapter",
        info="Such as v3_sd15_adapter: keeps the training videos' look out of the frames.",
    ),
    "domain_adapter_strength": FieldSpec(
        parse_number,
        control="slider",
        label="Adapter strength",
        infotext="Motion adapter strength",
        info="0 leaves the adapter out.",
        minimum=0.0,
        maximum=2.0,
        step=0.05,
    ),
}
