"""From the latents of a clip to its frames, a chunk of frames at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from motion.errors import SettingsError


class FramesDecoder(Protocol):
    """What decodes the unscaled latents `f c h w` of consecutive frames to `f 3 H W`, about [-1, 1]."""

    @property
    def dtype(self) -> torch.dtype:
        """Type in which latents must come."""

    def decode(self, z: Tensor) -> Tensor:
        """Frames of latents."""


def decode_in_chunks(decoder: FramesDecoder, latents: Tensor, chunk_size: int, overlap: int) -> Iterator[Tensor]:
    """Decode a clip; memory is that of one chunk with its overlap.

    A temporal decoder sees frames beside a chunk too, `overlap` on either side, and what it makes of these is thrown
    away: without them a chunk's ends would be treated as the clip's. Norms over frames still take a chunk's statistics,
    so chunks are close to a whole clip and not equal to it.

    Args:
        decoder: the decoder, on the latents' device.
        latents: unscaled latents of one clip, `f c h w`.
        chunk_size: frames that each pass gives.
        overlap: frames that it sees on either side.

    Yields:
        `n 3 H W`, float32 in [0, 1], on the CPU.

    Raises:
        SettingsError: chunks of no frames, or less than no overlap.
    """
    if chunk_size < 1 or overlap < 0:
        raise SettingsError(
            f"`decode_chunk_size` must be at least 1 and `decode_overlap` at least 0, got {chunk_size} and {overlap}. "
            "Raise them."
        )
    for start in range(0, len(latents), chunk_size):
        seen_from = max(0, start - overlap)
        seen = latents[seen_from : start + chunk_size + overlap].to(decoder.dtype)
        kept = decoder.decode(seen)[start - seen_from :][:chunk_size]
        yield (kept.float().cpu() / 2 + 0.5).clamp(0, 1)
