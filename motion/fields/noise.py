"""Fields of the noise that a clip starts from."""

from __future__ import annotations

from motion.fields.parsing import (
    FieldSpec,
    parse_bool,
    parse_choice,
    parse_integer,
    parse_number,
    parse_seeds,
)

FREEINIT_FILTERS = ("butterworth", "gaussian", "ideal", "box")
MAX_SEED = 2**32 - 1

NOISE_FIELDS = {
    "frame_seeds": FieldSpec(
        parse_seeds,
        control="text",
        label="Seeds of single frames",
        infotext="Motion frame seeds",
        info="One for each frame, such as 7, 7, 8, 9; empty takes them from the request's seed.",
        minimum=0,
        maximum=MAX_SEED,
    ),
    "freeinit_iterations": FieldSpec(
        parse_integer,
        control="slider",
        label="FreeInit iterations",
        infotext="Motion FreeInit",
        info="1 is off. Each further one samples the whole clip again, on the low frequencies of the one before.",
        minimum=1,
        maximum=10,
        step=1,
    ),
    "freeinit_coarse_to_fine": FieldSpec(
        parse_bool,
        control="checkbox",
        label="FreeInit coarse to fine",
        infotext="Motion FreeInit coarse to fine",
        info="Faster: early iterations take fewer steps.",
    ),
    "freeinit_filter": FieldSpec(
        parse_choice,
        control="choice",
        label="FreeInit filter",
        infotext="Motion FreeInit filter",
        info="How low frequencies are told from high ones.",
        choices=FREEINIT_FILTERS,
    ),
    "freeinit_order": FieldSpec(
        parse_integer,
        control="slider",
        label="FreeInit order",
        infotext="Motion FreeInit order",
        info="Steepness of the butterworth filter.",
        minimum=1,
        maximum=16,
        step=1,
    ),
    "freeinit_d_s": FieldSpec(
        parse_number,
        control="slider",
        label="FreeInit d_s",
        infotext="Motion FreeInit d_s",
        info="Where low frequencies stop in space; more keeps finer shapes of the iteration before.",
        minimum=0.01,
        maximum=1.0,
        step=0.01,
    ),
    "freeinit_d_t": FieldSpec(
        parse_number,
        control="slider",
        label="FreeInit d_t",
        infotext="Motion FreeInit d_t",
        info="Where low frequencies stop in time; more keeps faster motion of the iteration before.",
        minimum=0.01,
        maximum=1.0,
        step=0.01,
    ),
}
