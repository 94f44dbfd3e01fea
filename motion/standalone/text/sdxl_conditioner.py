"""Prompts and sizes to what SDXL's UNet takes: tokens of two text encoders, and one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motion.models.clip_text import ClipTextEncoder
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.size_embedding import embed_sizes
from motion.standalone.text.chunks import PromptChunk, pad_after_end
from motion.standalone.text.conditioner import PromptConditioner
from motion.standalone.text.prompt_parser import DictWithShape

OPEN_CLIP_PAD_ID = 0
LAYER_FROM_END = 2
"""The layer that SDXL was trained on, in both encoders: the last but one."""


@dataclass(frozen=True)
class PictureSizes:
    """What SDXL is told of the picture that it shall look like, pixels.

    Attributes:
        height: of the original and of the picture to make.
        width: likewise.
        crop_top: rows that were cut off the original; 0 gives centred pictures.
        crop_left: columns likewise.
    """

    height: int
    width: int
    crop_top: int = 0
    crop_left: int = 0

    def as_tensor(self) -> Tensor:
        """Original size, crop and target size: float32 [6]."""
        size = (self.height, self.width)
        return torch.tensor([*size, self.crop_top, self.crop_left, *size], dtype=torch.float32)


class SdxlConditioner(PromptConditioner):
    """SDXL's conditioner, with the arithmetic of Stability AI's generative-models as AUTOMATIC1111 1.10 uses it.

    Both encoders get the ids of one tokenizer: their vocabularies are the same but for the spelling of start and end.

    Attributes:
        clip: CLIP ViT-L/14.
        open_clip: OpenCLIP ViT-bigG/14, whose output at the end token joins the vector.
        skip_in_clip: `clip_skip` counts in `clip`; else it takes the layer that SDXL was trained on. `open_clip` always
            does.
    """

    def __init__(
        self, clip: ClipTextEncoder, open_clip: ClipTextEncoder, tokenizer: ClipTokenizer, **options: Any
    ) -> None:
        super().__init__(tokenizer, **options)
        self.clip = clip
        self.open_clip = open_clip
        self.skip_in_clip = False

    def forward(self, prompts: Sequence[str], sizes: PictureSizes, *, without_text: bool = False) -> DictWithShape:
        """Encode prompts that don't change over time.

        Args:
            prompts: at least one; shorter ones get empty chunks up to the longest.
            sizes: of the pictures.
            without_text: zeros in place of all that comes from the text. SDXL was trained so where it had no text.

        Returns:
            "crossattn": `b (77 chunks) (c1 + c2)` in the encoders' dtype; "vector": `b (p + 1536)` float32, the second
            encoder's pooled first chunk, then the sizes.

        Raises:
            SettingsError: an unknown emphasis, or a weight in a prompt that is no number.
        """
        encoded = [self._encode(chunks) for chunks in self.split(prompts)]
        tokens = torch.cat([chunk_tokens for chunk_tokens, _ in encoded], dim=1)
        pooled = encoded[0][1].float()
        if without_text:
            tokens, pooled = torch.zeros_like(tokens), torch.zeros_like(pooled)
        embedded = embed_sizes(sizes.as_tensor().to(pooled.device)[None]).expand(len(prompts), -1)
        return DictWithShape({"crossattn": tokens, "vector": torch.cat([pooled, embedded], dim=1)})

    def _encode(self, chunks: Sequence[PromptChunk]) -> tuple[Tensor, Tensor]:
        """`b 77 (c1 + c2)` and the pooled `b p` of one chunk of each prompt."""
        end_id = self.tokenizer.end_id
        ids = [chunk.tokens for chunk in chunks]
        zero_padded = [pad_after_end(tokens, end_id, OPEN_CLIP_PAD_ID) for tokens in ids]
        device = next(self.clip.parameters()).device
        layer = self.clip_skip if self.skip_in_clip else LAYER_FROM_END
        first, _ = self.clip.encode_for_sdxl(torch.tensor(ids, device=device), layer)
        second, pooled = self.open_clip.encode_for_sdxl(torch.tensor(zero_padded, device=device), LAYER_FROM_END)
        assert pooled is not None, "a checkpoint without that projection is refused"
        return torch.cat([self.weigh(first, chunks), self.weigh(second, chunks)], dim=-1), pooled
