"""Weights in prompts: `(word)`, `(word:1.2)`, `[word]`, escapes and BREAK, as AUTOMATIC1111 1.10 reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from motion.errors import SettingsError

ROUND_WEIGHT = 1.1
SQUARE_WEIGHT = 1 / 1.1
BREAK = "BREAK"
BREAK_WEIGHT = -1
"""Weight that marks a piece as a chunk break, not the word "BREAK"."""

_PIECE = re.compile(
    r"""
    \\(?P<escaped>[()\[\]\\]?)                        # \( \) \[ \] \\, or a lone backslash, which is dropped
    | :\s*(?P<weight>[+-]?[.\d]+)\s*\)                # the end of (words:1.2)
    | (?P<bracket>[()\[\]])
    | (?P<text>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass
class _Piece:
    text: str
    weight: float


def parse_prompt_attention(prompt: str) -> list[list[str | float]]:
    """Split a prompt into `[text, weight]` pairs.

    Neighbours of one weight are merged. A pair `["BREAK", -1]` asks for a new chunk. Brackets that are never closed
    weigh everything after them.

    Raises:
        SettingsError: a weight that is no number, such as 1.2.3.
    """
    pieces: list[_Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(bracket: str, weight: float) -> None:
        for piece in pieces[opened[bracket].pop() :]:
            piece.weight *= weight

    for match in _PIECE.finditer(prompt):
        escaped, weight, bracket = match["escaped"], match["weight"], match["bracket"]
        if escaped is not None:
            pieces.append(_Piece(escaped, 1.0))
        elif weight is not None and opened["("]:
            close("(", _parse_weight(weight, prompt))
        elif bracket in ("(", "["):
            opened[bracket].append(len(pieces))
        elif bracket == ")" and opened["("]:
            close("(", ROUND_WEIGHT)
        elif bracket == "]" and opened["["]:
            close("[", SQUARE_WEIGHT)
        else:
            pieces.extend(_split_at_breaks(match[0]))

    while opened["("]:
        close("(", ROUND_WEIGHT)
    while opened["["]:
        close("[", SQUARE_WEIGHT)
    return [[piece.text, piece.weight] for piece in _merge_equal_weights(pieces)] or [["", 1.0]]


def _parse_weight(weight: str, prompt: str) -> float:
    try:
        return float(weight)
    except ValueError:
        raise SettingsError(
            f"A weight in the prompt must be a number, got {weight!r} in {prompt[:80]!r}. "
            "Write it as (word:1.2), or escape the brackets as \\( \\)."
        ) from None


def _split_at_breaks(text: str) -> list[_Piece]:
    pieces = []
    for index, part in enumerate(_BREAK.split(text)):
        if index > 0:
            pieces.append(_Piece(BREAK, BREAK_WEIGHT))
        pieces.append(_Piece(part, 1.0))
    return pieces


def _merge_equal_weights(pieces: list[_Piece]) -> list[_Piece]:
    merged: list[_Piece] = []
    for piece in pieces:
        if merged and merged[-1].weight == piece.weight:
            merged[-1].text += piece.text
        else:
            merged.append(piece)
    return merged
