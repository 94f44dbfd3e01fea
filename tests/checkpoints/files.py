"""Small weight files with the keys of the public ones."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.manifests import manifest_shapes


def narrow_shape(shape: tuple[int, ...], width: int = 32) -> tuple[int, ...]:
    """A shape of an SD UNet or motion module at `width` instead of 320 channels."""
    return tuple(size // 320 * width if size % 320 == 0 else size for size in shape)


def fill(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Seeded random tensors of a sane scale; a key's numbers depend on the key alone."""
    tensors = {}
    for key, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        values = torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:])))
        tensors[key] = values.to(dtype)
    return tensors


def narrow_tensors(name: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors with the keys of manifest `name` at a tenth of the width; don't write into them."""
    return dict(_narrow_tensors(name, dtype))


@lru_cache(maxsize=16)
def _narrow_tensors(name: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return fill({key: narrow_shape(shape) for key, shape in manifest_shapes(name).items()}, dtype)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Write by suffix: .safetensors, or anything else by torch.save inside {"state_dict": …}."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path)
    return path


def diffusers_names(names: Mapping[str, object] | list[str]) -> dict[str, str]:
    """Key in AnimateDiff's spelling -> key in diffusers' one, which has one position table for both attentions."""
    found = {}
    for name in names:
        other = name.replace("temporal_transformer.", "").replace(".ff_norm.", ".norm3.")
        other = re.sub(r"\.norms\.(\d)\.", lambda match: f".norm{int(match[1]) + 1}.", other)
        other = re.sub(r"\.attention_blocks\.\d\.pos_encoder\.pe", ".pos_embed.pe", other)
        found[name] = re.sub(r"\.attention_blocks\.(\d)\.", lambda match: f".attn{int(match[1]) + 1}.", other)
    return found


def diffusers_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of manifest `name` in diffusers' spelling, at full width."""
    shapes = manifest_shapes(name)
    return {other: shapes[key] for key, other in diffusers_names(shapes).items()}
