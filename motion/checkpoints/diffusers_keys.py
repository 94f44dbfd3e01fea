"""Keys of diffusers' Stable Video Diffusion networks, as those of the original files.

Keys that are none of these networks' stay as they are, so that whoever loads them names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

_UNET_ENDS: Mapping[str, str] = MappingProxyType(
    {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
)
_UNET_RES_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
)
_AUTOENCODER_ATTENTION: Mapping[str, str] = MappingProxyType(
    {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
)
_BLOCK = re.compile(r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)")
_TEMPORAL_AUTOENCODER_ENDS: Mapping[str, str] = MappingProxyType(
    {"conv_norm_out": "norm_out", "time_conv_out": "conv_out.time_mix_conv"}
)


def unet_keys(names: Iterable[str]) -> dict[str, str]:
    """Our key -> key of `UNetSpatioTemporalConditionModel`, for every key of such a network."""
    names = list(names)
    per_level = _count(names, r"down_blocks\.0\.resnets\.(\d+)\.")
    attended = {match[1] for match in map(re.compile(r"up_blocks\.(\d+)\.attentions\.").match, names) if match}
    return {_unet_key(name, per_level, attended): name for name in names}


def autoencoder_keys(names: Iterable[str]) -> dict[str, str]:
    """Our key -> key of `AutoencoderKLTemporalDecoder` or `AutoencoderKL`, for every key of such a network."""
    names = list(names)
    levels = _count(names, r"decoder\.up_blocks\.(\d+)\.")
    return {_autoencoder_key(name, levels): name for name in names}


def _unet_key(name: str, per_level: int, attended: set[str]) -> str:
    found = _BLOCK.fullmatch(name)
    if found is None:
        module, _, kind = name.rpartition(".")
        return f"{_UNET_ENDS.get(module, module)}.{kind}"
    where, level, what, index, rest = found.groups()
    if what == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * (per_level + 1)}.0.{rest.replace('conv.', 'op.')}"
    if what == "upsamplers":
        place = 2 if level in attended else 1
        return f"output_blocks.{int(level) * (per_level + 1) + per_level}.{place}.{rest}"
    if where == "mid_block":
        block = f"middle_block.{2 * int(index) if what == 'resnets' else 1}"
    else:
        number = int(level) * (per_level + 1) + int(index)
        block = f"input_blocks.{number + 1}" if where == "down_blocks" else f"output_blocks.{number}"
        block += ".0" if what == "resnets" else ".1"
    return f"{block}.{_unet_res_part(rest) if what == 'resnets' else _unet_attention_part(rest)}"


def _unet_res_part(name: str) -> str:
    kind, _, part = name.partition(".")
    module, _, end = part.rpartition(".")
    if kind not in ("spatial_res_block", "temporal_res_block"):
        return name
    branch = "time_stack." if kind == "temporal_res_block" else ""
    return f"{branch}{_UNET_RES_PARTS.get(module, module)}.{end}"


def _unet_attention_part(name: str) -> str:
    name = re.sub(r"^temporal_transformer_blocks\.", "time_stack.", name)
    return re.sub(r"^time_pos_embed\.linear_([12])\.", lambda found: f"time_pos_embed.{2 * int(found[1]) - 2}.", name)


def _autoencoder_key(name: str, levels: int) -> str:
    half, _, inner = name.partition(".")
    found = _BLOCK.fullmatch(inner)
    if half not in ("encoder", "decoder"):
        return name
    if found is None:
        module, _, kind = inner.rpartition(".")
        return f"{half}.{_TEMPORAL_AUTOENCODER_ENDS.get(module, module)}.{kind}"
    where, level, what, index, rest = found.groups()
    side = "down" if where == "down_blocks" else "up"
    number = level if where == "down_blocks" else str(levels - 1 - int(level or 0))
    if what in ("downsamplers", "upsamplers"):
        return f"{half}.{side}.{number}.{side}sample.{rest}"
    if what == "attentions":
        module, _, kind = rest.rpartition(".")
        return f"{half}.mid.attn_{int(index) + 1}.{_AUTOENCODER_ATTENTION.get(module, module)}.{kind}"
    block = f"mid.block_{int(index) + 1}" if where == "mid_block" else f"{side}.{number}.block.{index}"
    return f"{half}.{block}.{_autoencoder_res_part(rest)}"


def _autoencoder_res_part(name: str) -> str:
    if name.startswith("temporal_res_block."):
        return _unet_res_part(name)
    name = name.removeprefix("spatial_res_block.").removeprefix("time_mixer.")
    return name.replace("conv_shortcut.", "nin_shortcut.")


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that `pattern` finds at the beginning of a key; 0 where it finds none."""
    match = re.compile(pattern).match
    return max((int(found[1]) + 1 for found in map(match, names) if found), default=0)
