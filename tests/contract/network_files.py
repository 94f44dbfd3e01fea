"""Networks that web UIs apply on their own (LoRA, LoHa, LoKr, embeddings), and a checkpoint into which they are merged.

All are made from one checkpoint on disk, whatever its widths. Every change of a weight is A ⊗ (U V) with a 2 × 2 matrix
A, which LoRA, LoHa and LoKr can all express.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from motion.standalone.lora_keys import diffusers_path

RANK = 3
STRENGTH = 0.7  # of the weights themselves, which have a variance of 1 / fan-in; alpha carries half of it
BLOCKS_PER_LEVEL = 2
UNET = "model.diffusion_model."
TEXT_MODEL = "cond_stage_model.transformer.text_model."
TOKENS = TEXT_MODEL + "embeddings.token_embedding.weight"
ATTENTION = re.compile(r".*(attn[12]\.to_(q|k|v|out\.0)|self_attn\.[qv]_proj)\.weight")
# What LCM LoRAs change beside the attention: all convolutions and linear layers of blocks and transformers.
WHOLE_UNET = re.compile(
    re.escape(UNET) + r".*(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_(in|out)|in_layers\.2|out_layers\.3"
    r"|emb_layers\.1|skip_connection|op|conv)\.weight"
)


@dataclass(frozen=True)
class Change:
    """ΔW = A ⊗ (U V), for a convolution over its flattened inputs.

    Attributes:
        a: [2, 2].
        u: [out / 2, RANK].
        v: [RANK, in / 2].
        shape: of the weight.
    """

    a: Tensor
    u: Tensor
    v: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, name: str, weight: Tensor) -> Change:
        """A function of the name and the weight's shape."""
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        rows, columns = weight.shape[0], weight[0].numel()
        u, v = (torch.randn(shape, generator=generator) for shape in ((rows // 2, RANK), (RANK, columns // 2)))
        a = torch.tensor([[1.0, 0.5], [-0.25, 1.0]])
        return cls(a, 2 * STRENGTH * u / RANK**0.5, v / columns**0.5, weight.shape)

    def full(self) -> Tensor:
        """The change itself, after alpha has halved it."""
        return torch.kron(self.a, self.u @ self.v).reshape(self.shape) / 2

    def as_lora(self) -> dict[str, Tensor]:
        """Tensors of one layer as kohya's scripts name them."""
        up = torch.kron(self.a, self.u)
        down = torch.kron(torch.eye(2), self.v)
        rank, kernel = down.shape[0], self.shape[2:]
        return {
            "lora_up.weight": up.reshape(-1, rank, *(1 for _ in kernel)),
            "lora_down.weight": down.reshape(rank, *self.shape[1:]),
            "alpha": torch.tensor(rank / 2),
        }

    def as_loha(self) -> dict[str, Tensor]:
        """The same as an entrywise product, of which one factor holds signs only."""
        up, down = torch.kron(self.a, self.u), torch.kron(torch.eye(2), self.v)
        rows = 1.0 - 2.0 * (torch.arange(up.shape[0]) % 3 == 0)
        columns = 1.0 - 2.0 * (torch.arange(down.shape[1]) % 5 == 0)
        rank = down.shape[0]
        return {
            "hada_w1_a": rows[:, None].repeat(1, rank) / rank,
            "hada_w1_b": columns.repeat(rank, 1),
            "hada_w2_a": up * rows[:, None],
            "hada_w2_b": down * columns,
            "alpha": torch.tensor(rank / 2),
        }

    def as_lokr(self) -> dict[str, Tensor]:
        """The same as LyCORIS writes a Kronecker product whose second factor has a low rank."""
        return {"lokr_w1": self.a, "lokr_w2_a": self.u, "lokr_w2_b": self.v, "alpha": torch.tensor(RANK / 2)}


SPELLINGS: Mapping[str, Callable[[Change], dict[str, Tensor]]] = {
    "lora": Change.as_lora,
    "loha": Change.as_loha,
    "lokr": Change.as_lokr,
}


def attention_changes(checkpoint: Mapping[str, Tensor], name: str) -> dict[str, Change]:
    """Key in the checkpoint -> change, for the attention of UNet and text encoder."""
    return _changes(checkpoint, name, ATTENTION)


def whole_unet_changes(checkpoint: Mapping[str, Tensor], name: str) -> dict[str, Change]:
    """Key in the checkpoint -> change, for what an LCM LoRA changes."""
    return _changes(checkpoint, name, WHOLE_UNET)


def _changes(checkpoint: Mapping[str, Tensor], name: str, layers: re.Pattern[str]) -> dict[str, Change]:
    return {
        key: Change.of(f"{name}:{key}", weight)
        for key, weight in checkpoint.items()
        if layers.fullmatch(key) and not key.startswith("first_stage_model.")
    }


def write_network(path: Path, changes: Mapping[str, Change], spelling: str) -> None:
    """A LoRA, LoHa or LoKr file with kohya's names of diffusers' layers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{_layer_name(key)}.{part}": tensor.contiguous()
        for key, change in changes.items()
        for part, tensor in SPELLINGS[spelling](change).items()
    }
    save_file(tensors, path)


def _layer_name(key: str) -> str:
    path = key.removesuffix(".weight")
    if path.startswith(TEXT_MODEL):
        return "lora_te_text_model_" + path.removeprefix(TEXT_MODEL).replace(".", "_")
    return "lora_unet_" + _diffusers_name(key).replace(".", "_")


def _diffusers_name(key: str) -> str:
    name = diffusers_path(key.removeprefix(UNET).removesuffix(".weight"), BLOCKS_PER_LEVEL)
    assert name is not None, key
    return name


def write_domain_adapter(path: Path, changes: Mapping[str, Change]) -> None:
    """A domain adapter in AnimateDiff's own spelling, of those changes that are in the UNet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, change in changes.items():
        if key.startswith(UNET):
            block, _, layer = _diffusers_name(key).partition(".to_")
            name = f"{block}.processor.to_{layer.removesuffix('.0')}_lora"
            lora = change.as_lora()
            tensors[f"{name}.down.weight"] = lora["lora_down.weight"]
            tensors[f"{name}.up.weight"] = lora["lora_up.weight"]
    save_file(tensors, path)


def write_merged_checkpoint(checkpoint: Path, name: str, networks: Iterable[Mapping[str, Change]]) -> None:
    """`<name>.safetensors` beside a checkpoint, with changes added to its weights; these in float32."""
    state = load_file(checkpoint)
    for changes in networks:
        for key, change in changes.items():
            state[key] = state[key].float() + change.full()
    save_file(state, checkpoint.with_name(f"{name}.safetensors"))
    shutil.copy(checkpoint.with_suffix(".yaml"), checkpoint.with_name(f"{name}.yaml"))


def write_embedding(path: Path, vectors: Tensor) -> None:
    """A textual inversion of the vectors [n, 768], as diffusers' concepts are saved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"emb_params": vectors.float().contiguous()}, path)
