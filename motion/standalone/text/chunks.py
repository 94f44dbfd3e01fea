"""Token chunks: 75 tokens of a prompt each, with a start token before and end tokens after them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from motion.models.clip_tokenizer import ClipTokenizer
from motion.standalone.text.attention_syntax import BREAK, BREAK_WEIGHT, parse_prompt_attention

CHUNK_LENGTH = 75


@dataclass
class PromptChunk:
    """Ids and weights of one text that the encoder sees.

    Attributes:
        tokens: ids; 77 once the chunk is complete.
        multipliers: weight of each token.
    """

    tokens: list[int] = field(default_factory=list)
    multipliers: list[float] = field(default_factory=list)

    def completed(self, start_id: int, end_id: int) -> PromptChunk:
        """The chunk with start, end and padding, which weigh 1."""
        missing = CHUNK_LENGTH - len(self.tokens)
        return PromptChunk(
            [start_id, *self.tokens, *[end_id] * (missing + 1)],
            [1.0, *self.multipliers, *[1.0] * (missing + 1)],
        )


def pad_after_end(tokens: Sequence[int], end_id: int, pad_id: int) -> list[int]:
    """A complete chunk's ids with `pad_id` after the first end token, for encoders that don't pad with end tokens."""
    end = tokens.index(end_id) + 1
    return [*tokens[:end], *[pad_id] * (len(tokens) - end)]


def target_token_count(token_count: int) -> int:
    """Tokens that a prompt of this length may have before it takes one more chunk."""
    return math.ceil(max(token_count, 1) / CHUNK_LENGTH) * CHUNK_LENGTH


class PromptChunker:
    """Prompts to chunks.

    Args:
        tokenizer: text to ids.
        comma_backtrack: a chunk that is full ends after its last comma instead, if that is at most this many tokens
            back; the rest moves into the next chunk. 0 cuts where the chunk is full.
        read_weights: False takes brackets and colons as they stand.
    """

    def __init__(self, tokenizer: ClipTokenizer, comma_backtrack: int = 20, read_weights: bool = True) -> None:
        self._tokenizer = tokenizer
        self._comma_backtrack = comma_backtrack
        self._read_weights = read_weights

    def empty_chunk(self) -> PromptChunk:
        """A chunk of no text."""
        return PromptChunk().completed(self._tokenizer.start_id, self._tokenizer.end_id)

    def split(self, prompt: str) -> tuple[list[PromptChunk], int]:
        """Chunks of 77 tokens, at least one, and how many tokens the prompt takes with the padding before BREAKs."""
        unweighted: list[list[str | float]] = [[prompt, 1.0]]
        pieces = parse_prompt_attention(prompt) if self._read_weights else unweighted
        filling = _Filling(self._tokenizer, self._comma_backtrack)
        for text, weight in pieces:
            if text == BREAK and weight == BREAK_WEIGHT:
                filling.finish_chunk()
                continue
            for token in self._tokenizer.encode(str(text)):
                filling.add(token, float(weight))
        return filling.finish()


class _Filling:
    """Chunks in the making."""

    def __init__(self, tokenizer: ClipTokenizer, comma_backtrack: int) -> None:
        self._tokenizer = tokenizer
        self._comma_backtrack = comma_backtrack
        self._done: list[PromptChunk] = []
        self._chunk = PromptChunk()
        self._last_comma: int | None = None

    def add(self, token: int, weight: float) -> None:
        chunk = self._chunk
        if token == self._tokenizer.comma_id:
            # Noted before the chunk may turn out to be full: then the note is dropped with the chunk.
            self._last_comma = len(chunk.tokens)
        elif len(chunk.tokens) == CHUNK_LENGTH and self._is_comma_near():
            self._move_text_after_comma()
        if len(self._chunk.tokens) == CHUNK_LENGTH:
            self.finish_chunk()
        self._chunk.tokens.append(token)
        self._chunk.multipliers.append(weight)

    def finish_chunk(self) -> None:
        self._done.append(self._chunk.completed(self._tokenizer.start_id, self._tokenizer.end_id))
        self._chunk = PromptChunk()
        self._last_comma = None

    def finish(self) -> tuple[list[PromptChunk], int]:
        token_count = CHUNK_LENGTH * len(self._done) + len(self._chunk.tokens)
        if self._chunk.tokens or not self._done:
            self.finish_chunk()
        return self._done, token_count

    def _is_comma_near(self) -> bool:
        return self._last_comma is not None and len(self._chunk.tokens) - self._last_comma <= self._comma_backtrack

    def _move_text_after_comma(self) -> None:
        assert self._last_comma is not None
        cut = self._last_comma + 1
        chunk = self._chunk
        rest = PromptChunk(chunk.tokens[cut:], chunk.multipliers[cut:])
        self._chunk = PromptChunk(chunk.tokens[:cut], chunk.multipliers[:cut])
        self.finish_chunk()
        self._chunk = rest
