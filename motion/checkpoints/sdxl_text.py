"""SDXL's two text encoders, from the keys of a single-file checkpoint to those of our networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

CLIP_PREFIX = "conditioner.embedders.0.transformer."
OPEN_CLIP_PREFIX = "conditioner.embedders.1.model."

# OpenCLIP's name -> transformers' name, of a residual block's parts.
_BLOCK_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
)
_SINGLE: Mapping[str, str] = MappingProxyType(
    {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
    }
)
_BLOCKS = "transformer.resblocks."
_BESIDE_THE_ENCODER = ("logit_scale", "attn_mask")
"""CLIP's training temperature and a table that is computed; neither is a weight of the text encoder."""


@dataclass(frozen=True)
class _Source:
    """Where a tensor of ours comes from: a name in the file, and what is made of that tensor."""

    name: str
    change: Callable[[Tensor], Tensor]


class ChangedTensors(Mapping[str, Tensor]):
    """Tensors by key, each read from a file and changed when it is asked for."""

    def __init__(self, file: Mapping[str, Tensor], sources: Mapping[str, _Source]) -> None:
        self._file = file
        self._sources = sources

    def __getitem__(self, key: str) -> Tensor:
        source = self._sources[key]
        return source.change(self._file[source.name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def open_clip_part(file: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The OpenCLIP text encoder's tensors under the keys of `ClipTextEncoder`.

    OpenCLIP keeps q, k and v in one matrix, which is cut in three, and multiplies the pooled vector from the left,
    `x @ text_projection`, where transformers has a Linear: that matrix is transposed. Keys of no text encoder stay as
    they are, so that whoever loads the part names them.
    """
    sources: dict[str, _Source] = {}
    for key in file:
        name = key.removeprefix(OPEN_CLIP_PREFIX)
        if name != key and name not in _BESIDE_THE_ENCODER:
            sources.update({"transformer." + ours: source for ours, source in _sources(name, key)})
    return ChangedTensors(file, sources)


def _sources(name: str, key: str) -> Iterator[tuple[str, _Source]]:
    """Our keys that the file's tensor `key`, called `name` in OpenCLIP, fills."""
    if name == "text_projection":
        yield "text_projection.weight", _Source(key, _transposed)
    elif name.startswith(_BLOCKS):
        index, _, part = name.removeprefix(_BLOCKS).partition(".")
        layer = f"text_model.encoder.layers.{index}."
        if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = part.removeprefix("attn.in_proj_")
            for place, letter in enumerate("qkv"):
                yield f"{layer}self_attn.{letter}_proj.{kind}", _Source(key, _third(place))
        else:
            module, _, kind = part.rpartition(".")
            yield f"{layer}{_BLOCK_PARTS.get(module, module)}.{kind}", _Source(key, _unchanged)
    else:
        yield _SINGLE.get(name, name), _Source(key, _unchanged)


def _third(place: int) -> Callable[[Tensor], Tensor]:
    # A damaged file may have no axis to cut; who loads the part finds the wrong shape.
    return lambda tensor: tensor.tensor_split(3)[place] if tensor.dim() else tensor


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, -1)


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor
