"""Fields of how a clip gets to the disk; no pixel depends on them, so the infotext leaves them out."""

from __future__ import annotations

from motion.fields.parsing import (
    FieldSpec,
    parse_bool,
    parse_integer,
)

OUTPUT_FIELDS = {
    "decode_chunk_size": FieldSpec(
        parse_integer,
        control="integer",
        label="Frames decoded at once",
        infotext="",
        info="0 is what suits the web UI; fewer where memory runs out.",
        minimum=0,
        maximum=64,
        step=1,
    ),
    "resume": FieldSpec(
        parse_bool,
        control="checkbox",
        label="Resume when interrupted",
        infotext="",
        info="Keeps each step on disk; the same request, run again after a stop or a crash, goes on from there.",
    ),
}
