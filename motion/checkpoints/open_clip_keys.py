"""OpenCLIP's transformers, from the keys of their files to those of transformers' CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

BLOCKS = "transformer.resblocks."

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


@dataclass(frozen=True)
class Source:
    """Where a tensor of ours comes from: a name in the file, and what is made of that tensor."""

    name: str
    change: Callable[[Tensor], Tensor]


class ChangedTensors(Mapping[str, Tensor]):
    """Tensors by key, each read from a file and changed when it is asked for."""

    def __init__(self, file: Mapping[str, Tensor], sources: Mapping[str, Source]) -> None:
        self._file = file
        self._sources = sources

    def __getitem__(self, key: str) -> Tensor:
        source = self._sources[key]
        return source.change(self._file[source.name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def block_sources(name: str, key: str, layers: str) -> Iterator[tuple[str, Source]]:
    """Keys of transformers' layers that one tensor of a residual block fills.

    OpenCLIP keeps q, k and v in one matrix, which is cut in three.

    Args:
        name: OpenCLIP's name of the tensor, which starts with `BLOCKS`.
        key: its key in the file.
        layers: where transformers' layers are, such as "text_model.encoder.layers.".
    """
    index, _, part = name.removeprefix(BLOCKS).partition(".")
    layer = f"{layers}{index}."
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.removeprefix("attn.in_proj_")
        for place, letter in enumerate("qkv"):
            yield f"{layer}self_attn.{letter}_proj.{kind}", Source(key, _third(place))
    else:
        module, _, kind = part.rpartition(".")
        yield f"{layer}{_BLOCK_PARTS.get(module, module)}.{kind}", Source(key, unchanged)


def transposed(tensor: Tensor) -> Tensor:
    """OpenCLIP multiplies a pooled vector from the left, `x @ projection`, where transformers has a Linear."""
    return tensor.transpose(0, -1)


def unchanged(tensor: Tensor) -> Tensor:
    """The file's tensor as it is."""
    return tensor


def _third(place: int) -> Callable[[Tensor], Tensor]:
    # A damaged file may have no axis to cut; who loads the part finds the wrong shape.
    return lambda tensor: tensor.tensor_split(3)[place] if tensor.dim() else tensor
