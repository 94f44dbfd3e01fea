"""SDXL's size conditioning: picture sizes as numbers that the UNet takes beside the text (arXiv:2307.01952, 2.2)."""

from __future__ import annotations

from torch import Tensor

from motion.models.unet_blocks import timestep_embedding

NUM_SIZES = 6
"""Original height and width, top and left of the crop, target height and width."""
SIZE_CHANNELS = 256


def embed_sizes(sizes: Tensor) -> Tensor:
    """Embed each number as a timestep is embedded, and put the results side by side.

    Args:
        sizes: `b 6`, pixels: original height, width, crop top, left, target height, width. float32 or an integer type:
            bfloat16 can't tell 1016 from 1020.

    Returns:
        `b 1536`, float32: 256 channels per number, cosines before sines.
    """
    return timestep_embedding(sizes, SIZE_CHANNELS).flatten(1)  # b n c -> b (n c)
