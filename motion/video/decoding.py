"""From latents to pictures, some frames at a time: fewer where memory runs out, and in tiles where one is too many."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Decode = Callable[[Tensor], Sequence[Tensor]]
"""Latents `f c h w` -> as many pictures, each `3 H W`."""

VALUES_PER_LATENT_PIXEL = 3 * 256 * 64
"""Numbers that Stable Diffusion's decoder holds at its peak, for each frame and latent pixel: three feature maps of 256
channels at full size, of 64 pixels each. `python -m benchmarks.decode_memory` counts them."""

LARGEST_TILE, SMALLEST_TILE = 96, 16
"""Latent pixels along a tile's sides, when tiles are first needed, and below which memory can't be saved."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class DecodePlan:
    """How many frames are decoded at once.

    Attributes:
        chunk_size: frames, at least 1.
        tile_size: sides of the tiles in which each frame is decoded, latent pixels; None decodes it whole.
    """

    chunk_size: int
    tile_size: int | None = None

    @classmethod
    def fitting(cls, chunk_size: int, size: tuple[int, int], num_bytes: int, free_bytes: int | None) -> DecodePlan:
        """The plan for `chunk_size` frames, made smaller as far as an estimate of memory asks for it.

        Args:
            chunk_size: frames that are wanted at once.
            size: height and width of the latents.
            num_bytes: size of a number in the decoder's computations.
            free_bytes: memory that there is; None where running out of it shows by an error that can be caught.
        """
        plan = cls(chunk_size)
        smaller: DecodePlan | None = plan
        while free_bytes is not None and smaller is not None and plan.needed_bytes(size, num_bytes) > free_bytes:
            smaller = plan.smaller(size)
            plan = smaller or plan
        return plan

    def needed_bytes(self, size: tuple[int, int], num_bytes: int) -> int:
        """Memory of the decoder's feature maps."""
        sides = size if self.tile_size is None else [min(side, self.tile_size) for side in size]
        return self.chunk_size * math.prod(sides) * VALUES_PER_LATENT_PIXEL * num_bytes

    def smaller(self, size: tuple[int, int]) -> DecodePlan | None:
        """Half the frames; from one frame on tiles, of ever shorter sides; None where there is nothing smaller."""
        if self.chunk_size > 1:
            return DecodePlan(self.chunk_size // 2)
        largest = min(LARGEST_TILE, max(size) // 2) if self.tile_size is None else self.tile_size // 2
        return DecodePlan(1, largest) if largest >= SMALLEST_TILE else None


def decoded_in_chunks(latents: Tensor, decode: Decode, plan: DecodePlan) -> Iterator[list[Tensor]]:
    """Pictures of `latents`, `f c h w`, some frames at a time; with a smaller plan once memory runs out.

    Raises:
        RuntimeError: out of memory, also with the smallest tiles.
    """
    place = 0
    while place < len(latents):
        chunk = latents[place : place + plan.chunk_size]
        pictures = None
        try:
            pictures = _decoded(chunk, decode, plan)
        except RuntimeError as error:
            size = (latents.shape[-2], latents.shape[-1])
            smaller = plan.smaller(size) if is_out_of_memory(error) else None
            if smaller is None:
                raise
            logger.warning("Motion: decoding as %s ran out of memory, going on with %s", plan, smaller)
            plan = smaller
        if pictures is not None:  # past the error, whose traceback holds the tensors of the failed try
            place += len(chunk)
            yield pictures
        elif torch.cuda.is_available():
            torch.cuda.empty_cache()


def _decoded(chunk: Tensor, decode: Decode, plan: DecodePlan) -> list[Tensor]:
    if plan.tile_size is None:
        return list(decode(chunk))
    return [decode_tiled(latent, decode, plan.tile_size) for latent in chunk]


def decode_tiled(latent: Tensor, decode: Decode, tile_size: int) -> Tensor:
    """One picture, decoded in overlapping tiles that fade into one another; float32 on the CPU, `3 H W`.

    What a decoder computes from the whole picture (norms, attention in the middle) it computes for each tile, so that
    brightness may differ a little from that of the whole; the overlap, a quarter of a tile, spreads it.

    Args:
        latent: `c h w`.
        decode: the decoder.
        tile_size: sides of a tile, latent pixels.
    """
    height, width = latent.shape[-2:]
    overlap = tile_size // 4
    total = weights = torch.zeros(())
    for top, left in itertools.product(_starts(height, tile_size, overlap), _starts(width, tile_size, overlap)):
        part = latent[None, :, top : top + tile_size, left : left + tile_size]
        picture = decode(part)[0].float().cpu()
        factor = picture.shape[-1] // part.shape[-1]
        if total.dim() == 0:
            total = torch.zeros(picture.shape[0], height * factor, width * factor)
            weights = torch.zeros(height * factor, width * factor)
        weight = torch.outer(
            _fade(part.shape[-2] * factor, overlap * factor, top > 0, top + tile_size < height),
            _fade(part.shape[-1] * factor, overlap * factor, left > 0, left + tile_size < width),
        )
        rows = slice(top * factor, top * factor + picture.shape[-2])
        columns = slice(left * factor, left * factor + picture.shape[-1])
        total[:, rows, columns] += picture * weight
        weights[rows, columns] += weight
    return total / weights


def _starts(side: int, tile_size: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover a side evenly, neighbours sharing `overlap` pixels or more."""
    if side <= tile_size:
        return [0]
    count = math.ceil((side - overlap) / (tile_size - overlap))
    return [round(index * (side - tile_size) / (count - 1)) for index in range(count)]


def _fade(length: int, ramp: int, at_begin: bool, at_end: bool) -> Tensor:
    """Weights along a side, rising from 0 to 1 in the middle half of `ramp` pixels where a neighbour is.

    Pixels at a tile's border, where the decoder saw zeros in place of the picture, count nothing.
    """
    weights = torch.ones(length)
    rising = (2 * (torch.arange(ramp) + 0.5) / ramp - 0.5).clamp(1e-6, 1)
    if at_begin:
        weights[:ramp] = rising
    if at_end:
        weights[-ramp:] = torch.minimum(weights[-ramp:], rising.flip(0))
    return weights


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether `error` says so; only CUDA's has a class of its own."""
    return any(text in str(error).lower() for text in _OUT_OF_MEMORY)
