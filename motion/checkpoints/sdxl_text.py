"""SDXL's two text encoders, from the keys of a single-file checkpoint to those of our networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from motion.checkpoints.open_clip_keys import BLOCKS, ChangedTensors, Source, block_sources, transposed, unchanged

CLIP_PREFIX = "conditioner.embedders.0.transformer."
OPEN_CLIP_PREFIX = "conditioner.embedders.1.model."

_SINGLE: Mapping[str, str] = MappingProxyType(
    {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
    }
)
_BESIDE_THE_ENCODER = ("logit_scale", "attn_mask")
"""CLIP's training temperature and a table that is computed; neither is a weight of the text encoder."""


def open_clip_part(file: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The OpenCLIP text encoder's tensors under the keys of `ClipTextEncoder`.

    Keys of no text encoder stay as they are, so that whoever loads the part names them.
    """
    sources: dict[str, Source] = {}
    for key in file:
        name = key.removeprefix(OPEN_CLIP_PREFIX)
        if name != key and name not in _BESIDE_THE_ENCODER:
            sources.update({"transformer." + ours: source for ours, source in _sources(name, key)})
    return ChangedTensors(file, sources)


def _sources(name: str, key: str) -> Iterator[tuple[str, Source]]:
    """Our keys that the file's tensor `key`, called `name` in OpenCLIP, fills."""
    if name == "text_projection":
        yield "text_projection.weight", Source(key, transposed)
    elif name.startswith(BLOCKS):
        yield from block_sources(name, key, "text_model.encoder.layers.")
    else:
        yield _SINGLE.get(name, name), Source(key, unchanged)
