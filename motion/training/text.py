"""Captions to the UNet's context, as the hosts do it for a prompt without emphasis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from motion.models.clip_text import ClipTextEncoder
from motion.models.clip_tokenizer import ClipTokenizer


class TextConditioner:
    """A tokenizer and the text encoder that goes with it.

    Args:
        tokenizer: the encoder's vocabulary.
        encoder: CLIP text encoder of SD1.
    """

    def __init__(self, tokenizer: ClipTokenizer, encoder: ClipTextEncoder) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder

    @property
    def max_words(self) -> int:
        """Tokens of a caption that the encoder sees, start and end not counted."""
        return self.encoder.config.max_positions - 2

    def count_tokens(self, caption: str) -> int:
        """Tokens of `caption`, start and end not counted."""
        return len(self.tokenizer.encode(caption))

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Token ids int64 `b n`: start, the caption's first `max_words`, then ends up to the last position."""
        rows = []
        for caption in captions:
            ids = self.tokenizer.encode(caption)[: self.max_words]
            rows.append([self.tokenizer.start_id, *ids] + [self.tokenizer.end_id] * (self.max_words + 1 - len(ids)))
        return torch.tensor(rows, dtype=torch.int64)

    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Contexts `b n d` of captions, with a gradient where one is asked for. Equal captions are encoded once."""
        different = sorted(set(captions))
        device = next(self.encoder.parameters()).device
        encoded: Tensor = self.encoder(self.tokens(different).to(device))
        return encoded[torch.tensor([different.index(caption) for caption in captions], device=device)]


class CachedContexts:
    """Contexts of a frozen text encoder, each encoded once and kept on the CPU.

    Args:
        conditioner: the encoder, which may be freed when all captions are known.
        captions: the captions that will be asked for.
    """

    def __init__(self, conditioner: TextConditioner, captions: Sequence[str]) -> None:
        self._rows = {caption: row for row, caption in enumerate(sorted(set(captions)))}
        with torch.no_grad():
            parts = [conditioner.contexts([caption]).cpu() for caption in self._rows]
        self._contexts = torch.cat(parts)

    def contexts(self, captions: Sequence[str]) -> Tensor:
        """Contexts `b n d` of captions, on the CPU."""
        return self._contexts[[self._rows[caption] for caption in captions]]
