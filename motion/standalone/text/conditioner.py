"""Prompts to the tensors that the UNet attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motion.errors import SettingsError
from motion.models.clip_text import ClipTextEncoder
from motion.models.clip_tokenizer import ClipTokenizer
from motion.standalone.text.chunks import PromptChunk, PromptChunker, target_token_count

EMPHASES = ("Original", "No norm", "Ignore", "None")


class PromptConditioner(nn.Module):
    """Prompts of any length with weights, as AUTOMATIC1111 1.10 reads them: what all families' conditioners share.

    Attributes:
        tokenizer: text to ids.
        clip_skip: layer to stop at, counted from the end; 1 is the last.
        emphasis: what weights do, of EMPHASES. "Original" multiplies the encoder's output and then restores its mean,
            "No norm" only multiplies, "Ignore" reads weights and drops them, "None" leaves brackets in the text.
        comma_backtrack: tokens that a full chunk may end earlier to end after a comma.
    """

    def __init__(
        self, tokenizer: ClipTokenizer, *, clip_skip: int = 1, emphasis: str = "Original", comma_backtrack: int = 20
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.clip_skip = clip_skip
        self.emphasis = emphasis
        self.comma_backtrack = comma_backtrack

    def count_tokens(self, prompt: str) -> tuple[int, int]:
        """Tokens of a prompt, and how many it may have before it takes one more chunk."""
        token_count = self._chunker().split(prompt)[1]
        return token_count, target_token_count(token_count)

    def split(self, prompts: Sequence[str]) -> list[list[PromptChunk]]:
        """Chunk by chunk, that chunk of each prompt; shorter prompts get empty chunks up to the longest.

        Raises:
            SettingsError: an unknown emphasis, or a weight in a prompt that is no number.
        """
        chunker = self._chunker()
        chunks_of = {prompt: chunker.split(prompt)[0] for prompt in prompts}
        count = max(len(chunks) for chunks in chunks_of.values())
        padded = {
            prompt: chunks + [chunker.empty_chunk()] * (count - len(chunks)) for prompt, chunks in chunks_of.items()
        }
        return [[padded[prompt][index] for prompt in prompts] for index in range(count)]

    def weigh(self, features: Tensor, chunks: Sequence[PromptChunk]) -> Tensor:
        """An encoder's output `b 77 c` with the weights of its tokens."""
        if self.emphasis not in ("Original", "No norm"):
            return features
        weights = torch.tensor([chunk.multipliers for chunk in chunks], device=features.device)
        # In float32, since a mean over many half-precision numbers, and the quotient of two, lose most digits.
        plain = features.float()
        weighted = plain * weights.unsqueeze(-1)
        if self.emphasis == "Original":
            # One mean over all prompts of the call, as in the web UI: a weight in one text scales the others too.
            mean, weighted_mean = plain.mean(), weighted.mean()
            # A text encoder that was never trained may answer with a mean of exactly zero: nothing to restore.
            weighted = weighted * torch.where(weighted_mean == 0, 1.0, mean / weighted_mean)
        return weighted.to(features.dtype)

    def _chunker(self) -> PromptChunker:
        if self.emphasis not in EMPHASES:
            raise SettingsError(f"`emphasis` must be one of {', '.join(EMPHASES)}, got {self.emphasis!r}. Choose one.")
        return PromptChunker(self.tokenizer, self.comma_backtrack, read_weights=self.emphasis != "None")


class TextConditioner(PromptConditioner):
    """Stable Diffusion 1's conditioner.

    Attributes:
        clip: text encoder.
    """

    def __init__(self, clip: ClipTextEncoder, tokenizer: ClipTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.clip = clip

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts that don't change over time.

        Args:
            prompts: at least one; shorter ones get empty chunks up to the longest.

        Returns:
            `b (77 chunks) c` in the encoder's dtype and on its device.

        Raises:
            SettingsError: an unknown emphasis, or a weight in a prompt that is no number.
        """
        return torch.cat([self._encode(chunks) for chunks in self.split(prompts)], dim=1)

    def _encode(self, chunks: Sequence[PromptChunk]) -> Tensor:
        """`b 77 c` of one chunk of each prompt."""
        device = next(self.clip.parameters()).device
        tokens = torch.tensor([chunk.tokens for chunk in chunks], device=device)
        return self.weigh(self.clip(tokens, self.clip_skip), chunks)
