"""Fields of the windows in which long clips run."""

from __future__ import annotations

from motion.fields.parsing import (
    FieldSpec,
    parse_bool,
    parse_choice,
    parse_integer,
)

CONTEXT_SCHEDULES = ("uniform", "looped", "static", "batched", "views")
WINDOW_SCOPES = ("auto", "attention", "unet")
FUSE_METHODS = ("pyramid", "flat", "relative", "overlap-linear", "gaussian")

WINDOW_FIELDS = {
    "context_length": FieldSpec(
        parse_integer,
        control="integer",
        label="Window length",
        infotext="Motion window",
        info="Longer clips run in windows of so many frames; 0 is what the module was trained on.",
        minimum=0,
        maximum=256,
        step=1,
    ),
    "context_overlap": FieldSpec(
        parse_integer,
        control="integer",
        label="Window overlap",
        infotext="Motion overlap",
        info="Frames that neighbouring windows share; -1 is a quarter of the window.",
        minimum=-1,
        maximum=255,
        step=1,
    ),
    "context_stride": FieldSpec(
        parse_integer,
        control="integer",
        label="Window stride",
        infotext="Motion stride",
        info="Above 1, windows of every 2nd, 4th, … frame run too, which ties distant frames together.",
        minimum=1,
        maximum=8,
        step=1,
    ),
    "closed_loop": FieldSpec(
        parse_bool,
        control="checkbox",
        label="Closed loop",
        infotext="Motion closed loop",
        info="The last frame leads to the first.",
    ),
    "context_schedule": FieldSpec(
        parse_choice,
        control="choice",
        label="Window schedule",
        infotext="Motion windows",
        info="uniform moves the windows' borders in each step, static and batched don't.",
        choices=CONTEXT_SCHEDULES,
    ),
    "fuse_method": FieldSpec(
        parse_choice,
        control="choice",
        label="Window weights",
        infotext="Motion window weights",
        info="How overlapping windows are blended.",
        choices=FUSE_METHODS,
    ),
    "window_scope": FieldSpec(
        parse_choice,
        control="choice",
        label="Window scope",
        infotext="Motion window scope",
        info="attention is faster; unet needs the memory of one window only. auto is attention where memory suffices.",
        choices=WINDOW_SCOPES,
    ),
}
