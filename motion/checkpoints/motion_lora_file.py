"""Motion LoRA files in all their spellings: low-rank changes of a motion module's linear layers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from motion.checkpoints.format_types import Shapes
from motion.checkpoints.low_rank import LayerKeys, LowRankWeights, pair_keys, read_deltas, split_role
from motion.checkpoints.motion_lora_base import UnknownBaseError, read_base
from motion.checkpoints.weight_file import open_weights

# A1111's re-hosts join the same names by underscores; peft and diffusers put their own prefixes before them and leave
# `temporal_transformer` out.
_MODULE = re.compile(
    r"(?:(?:unet|lora_unet|base_model\.model)[._])*"
    r"(?P<block>(?:down|up)_blocks[._]\d+|mid_block)[._]motion_modules[._](?P<position>\d+)"
    r"(?:[._]temporal_transformer)?[._](?P<inner>.+)"
)
_BLOCK = re.compile(r"transformer_blocks[._](?P<index>\d+)[._](?P<part>.+)")
_ATTENTION = re.compile(
    r"(?:attention_blocks[._](?P<index>\d+)|attn(?P<number>[12]))[._]"
    r"(?:processor[._])?to_(?:(?P<letter>[qkv])|out(?:[._]0)?)"
)
_FEED_FORWARD = re.compile(r"ff[._]net[._](?P<place>0[._]proj|2)")


@dataclass(frozen=True)
class MotionLora(LowRankWeights):
    """A motion LoRA. Its `deltas` go by the names of linear layers in a `MotionModel`, such as
    "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q".
    """

    @property
    def base(self) -> str | None:
        """The Stable Diffusion family that it belongs to, "sd15" or "sdxl"; None where its content can't tell."""
        try:
            return read_base((name, delta.shape) for name, delta in self.deltas.items())
        except UnknownBaseError:
            return None


def is_motion_lora(shapes: Shapes) -> bool:
    """True for the keys of a motion LoRA, in any spelling."""
    return any(_motion_layer(name) is not None for name, _ in filter(None, map(split_role, shapes)))


def load_motion_lora(path: str | Path) -> MotionLora:
    """Read a motion LoRA.

    Raises:
        CheckpointError: the file can't be read, is something else, or is damaged or incomplete.
    """
    with open_weights(path) as file:
        return MotionLora(str(path), read_deltas(file, motion_lora_layers(file.shapes, path)))


def motion_lora_layers(shapes: Shapes, path: str | Path) -> dict[str, LayerKeys]:
    """Layer as `MotionModel` names it -> its tensors' keys, for a motion LoRA in any spelling; no data is read.

    Raises:
        CheckpointError: the file is something else, or incomplete.
    """
    return pair_keys(
        shapes,
        path,
        _motion_layer,
        "a motion LoRA",
        "Choose a motion LoRA; an ordinary LoRA goes into the web UI's own LoRA folder.",
    )


def _motion_layer(name: str) -> str | None:
    """A layer's name as any spelling has it -> as `MotionModel` has it; None for layers outside motion modules."""
    module = _MODULE.fullmatch(name)
    if module is None:
        return None
    inner = _inner_layer(module["inner"])
    block = module["block"].replace("blocks_", "blocks.")
    return inner and f"{block}.motion_modules.{module['position']}.temporal_transformer.{inner}"


def _inner_layer(name: str) -> str | None:
    if name in ("proj_in", "proj_out"):
        return name
    block = _BLOCK.fullmatch(name)
    if block is None:
        return None
    prefix = f"transformer_blocks.{block['index']}"
    if attention := _ATTENTION.fullmatch(block["part"]):
        index = attention["index"] or int(attention["number"]) - 1
        layer = f"to_{attention['letter']}" if attention["letter"] else "to_out.0"
        return f"{prefix}.attention_blocks.{index}.{layer}"
    if feed_forward := _FEED_FORWARD.fullmatch(block["part"]):
        return f"{prefix}.ff.net.{feed_forward['place'].replace('_', '.')}"
    return None
