"""Domain adapter files (v3_sd15_adapter): low-rank changes of the UNet's spatial attention, in diffusers' names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from motion.checkpoints.format_types import Shapes
from motion.checkpoints.low_rank import LayerKeys, LowRankWeights, pair_keys, read_deltas, split_role
from motion.checkpoints.weight_file import open_weights

_LAYER = re.compile(
    r"(?:unet\.)?(?P<block>(?:(?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+)\."
    r"(?P<attention>transformer_blocks\.\d+\.attn[12])\.processor\.to_(?:(?P<letter>[qkv])|out(?:\.0)?)"
)


@dataclass(frozen=True)
class DomainAdapter(LowRankWeights):
    """A domain adapter. Its `deltas` go by diffusers' names of linear layers, such as
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q".
    """


def is_domain_adapter(shapes: Shapes) -> bool:
    """True for keys in the original spelling; re-hosts in others are ordinary LoRAs, which the web UI applies."""
    names = [name for name, _ in filter(None, map(split_role, shapes))]
    return len(names) == len(shapes) > 0 and all(_spatial_layer(name) for name in names)


def load_domain_adapter(path: str | Path) -> DomainAdapter:
    """Read a domain adapter.

    Raises:
        CheckpointError: the file can't be read, is something else, or is damaged or incomplete.
    """
    with open_weights(path) as file:
        return DomainAdapter(str(path), read_deltas(file, domain_adapter_layers(file.shapes, path)))


def domain_adapter_layers(shapes: Shapes, path: str | Path) -> dict[str, LayerKeys]:
    """Layer in diffusers' names -> its tensors' keys, for a domain adapter; no data is read.

    Raises:
        CheckpointError: the file is something else, or incomplete.
    """
    return pair_keys(
        shapes,
        path,
        _spatial_layer,
        "a domain adapter in its original spelling",
        "Choose one such as v3_sd15_adapter; an ordinary LoRA goes into the web UI's own LoRA folder.",
    )


def _spatial_layer(name: str) -> str | None:
    match = _LAYER.fullmatch(name)
    if match is None:
        return None
    layer = f"to_{match['letter']}" if match["letter"] else "to_out.0"
    return f"{match['block']}.{match['attention']}.{layer}"
