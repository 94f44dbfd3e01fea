"""Names that LoRA files use for the layers of a model.

kohya's scripts flatten a module's path with underscores. Files trained from diffusers weights name the UNet's layers as
diffusers does, others as ldm does; both are made here from the ldm-layout UNet at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

_RESBLOCK: Mapping[str, str] = MappingProxyType(
    {
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
    }
)
_SINGLE: Mapping[str, str] = MappingProxyType(
    {
        "input_blocks.0.0": "conv_in",
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "out.2": "conv_out",
    }
)


def lora_targets(unet: nn.Module, text_encoder: nn.Module) -> dict[str, nn.Module]:
    """Every name under which a LoRA file may address a Linear or Conv2d -> that layer.

    Args:
        unet: ldm layout (`input_blocks`, `middle_block`, `output_blocks`).
        text_encoder: holds transformers CLIP text models somewhere below (`…text_model.encoder.layers.…`): one, whose
            layers are named "lora_te_…", or SDXL's two, "lora_te1_…" and "lora_te2_…".
    """
    targets: dict[str, nn.Module] = {}
    per_level = _blocks_per_level(unet)
    for path, module in _layers(unet):
        for name in (path, diffusers_path(path, per_level)):
            if name is not None:
                targets[f"lora_unet_{_flat(name)}"] = module
    holders = [module for module in text_encoder.modules() if "text_model" in dict(module.named_children())]
    for number, holder in enumerate(holders, start=1):
        prefix = "lora_te" if len(holders) == 1 else f"lora_te{number}"
        targets.update((f"{prefix}_{_flat(path)}", module) for path, module in _layers(holder))
    return targets


def diffusers_path(path: str, per_level: int) -> str | None:
    """Diffusers' path of an ldm UNet layer; None where it has none.

    Args:
        path: such as "input_blocks.1.1.transformer_blocks.0.attn1.to_q".
        per_level: residual blocks in each level of the down path; the up path has one more.
    """
    for single, name in _SINGLE.items():
        if path == single:
            return name
    part, _, rest = path.partition(".")
    index, _, rest = rest.partition(".")
    if part == "middle_block":
        return _in_middle(int(index), rest)
    _child, _, rest = rest.partition(".")
    if part == "input_blocks":
        level, place = divmod(int(index) - 1, per_level + 1)
        if place == per_level:
            return f"down_blocks.{level}.downsamplers.0.conv"
        return _in_block(f"down_blocks.{level}", place, rest)
    if part == "output_blocks":
        level, place = divmod(int(index), per_level + 1)
        # The upsampler is the last child; its only layer is `conv`, which no residual block or transformer has.
        return (
            f"up_blocks.{level}.upsamplers.0.conv" if rest == "conv" else _in_block(f"up_blocks.{level}", place, rest)
        )
    return None


def _in_block(block: str, place: int, rest: str) -> str:
    residual = _RESBLOCK.get(rest)
    return f"{block}.attentions.{place}.{rest}" if residual is None else f"{block}.resnets.{place}.{residual}"


def _in_middle(index: int, rest: str) -> str:
    residual = _RESBLOCK.get(rest)
    if residual is None:
        return f"mid_block.attentions.0.{rest}"
    return f"mid_block.resnets.{index // 2}.{residual}"


def _blocks_per_level(unet: nn.Module) -> int:
    """Residual blocks in each level: the first downsampler (a lone child that has `op`) comes right after them."""
    blocks = unet.get_submodule("input_blocks")
    children = list(blocks.children())
    for index, block in enumerate(children[1:]):
        if any(path.endswith("op") for path, _ in block.named_modules()):
            return index
    return len(children) - 1


def _layers(root: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(path, module) for path, module in root.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def _flat(path: str) -> str:
    return path.replace(".", "_")
