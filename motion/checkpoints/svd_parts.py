"""Which tensors of Stable Video Diffusion's files fill which of our networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from motion.checkpoints.diffusers_keys import autoencoder_keys, unet_keys
from motion.checkpoints.open_clip_keys import BLOCKS, ChangedTensors, Source, block_sources, transposed, unchanged

UNET_PREFIX = "model.diffusion_model."
FIRST_STAGE_PREFIX = "first_stage_model."
CONDITION_PREFIX = "conditioner.embedders.3.encoder."
IMAGE_PREFIX = "conditioner.embedders.0.open_clip.model.visual."

_ENCODER_HALF = ("encoder.", "quant_conv.")
_DECODER_HALF = ("decoder.", "post_quant_conv.")
_SINGLE: Mapping[str, str] = MappingProxyType(
    {
        "class_embedding": "vision_model.embeddings.class_embedding",
        "positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers spells it so
        "ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "ln_post.weight": "vision_model.post_layernorm.weight",
        "ln_post.bias": "vision_model.post_layernorm.bias",
    }
)


@dataclass(frozen=True)
class SvdParts:
    """The tensors of each network, under its keys.

    Attributes:
        unet: of `VideoUNet`.
        image_encoder: of `ClipImageEncoder`.
        encoder: of `LatentEncoder`.
        decoder: of `ClipDecoder`, or of `FrameDecoder` in `image_decoder` variants.
    """

    unet: Mapping[str, Tensor]
    image_encoder: Mapping[str, Tensor]
    encoder: Mapping[str, Tensor]
    decoder: Mapping[str, Tensor]


def single_file_parts(file: Mapping[str, Tensor]) -> SvdParts:
    """Parts of the public single files.

    Not used are the leftovers of OpenCLIP's text tower, the first stage's encoder (pictures are encoded by the
    conditioner's) and the conditioner's decoder.
    """
    return SvdParts(
        unet=_renamed(file, _below(file, UNET_PREFIX)),
        image_encoder=ChangedTensors(file, dict(_image_sources(file))),
        encoder=_renamed(file, _below(file, CONDITION_PREFIX, _ENCODER_HALF)),
        decoder=_renamed(file, _below(file, FIRST_STAGE_PREFIX, _DECODER_HALF)),
    )


def folder_parts(
    unet: Mapping[str, Tensor], vae: Mapping[str, Tensor], image_encoder: Mapping[str, Tensor]
) -> SvdParts:
    """Parts of a diffusers folder, from the files of its subfolders of these names."""
    names = autoencoder_keys(vae)
    sources = {key: Source(name, _as_convolution if _is_projection(key) else unchanged) for key, name in names.items()}
    tables = {"transformer." + name: name for name in image_encoder if not name.endswith(".position_ids")}
    return SvdParts(
        unet=_renamed(unet, unet_keys(unet)),
        image_encoder=_renamed(image_encoder, tables),
        encoder=ChangedTensors(vae, {key: sources[key] for key in sources if key.startswith(_ENCODER_HALF)}),
        decoder=ChangedTensors(vae, {key: sources[key] for key in sources if not key.startswith(_ENCODER_HALF)}),
    )


def _below(file: Mapping[str, Tensor], prefix: str, parts: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Key without `prefix` -> key, of the keys that go on with one of `parts`."""
    names = ((key.removeprefix(prefix), key) for key in file if key.startswith(prefix))
    return {name: key for name, key in names if name.startswith(parts)}


def _renamed(file: Mapping[str, Tensor], names: Mapping[str, str]) -> Mapping[str, Tensor]:
    return ChangedTensors(file, {key: Source(name, unchanged) for key, name in names.items()})


def _image_sources(file: Mapping[str, Tensor]) -> Iterator[tuple[str, Source]]:
    """Key of `ClipImageEncoder` and where it comes from, of OpenCLIP's picture tower."""
    for name, key in _below(file, IMAGE_PREFIX).items():
        if name == "proj":
            yield "transformer.visual_projection.weight", Source(key, transposed)
        elif name.startswith(BLOCKS):
            for ours, source in block_sources(name, key, "vision_model.encoder.layers."):
                yield "transformer." + ours, source
        else:
            yield "transformer." + _SINGLE.get(name, name), Source(key, unchanged)


def _is_projection(key: str) -> bool:
    """True for weights of the autoencoder's attention: Linear layers' in diffusers, 1x1 convolutions' here."""
    return ".mid.attn_1." in key and key.endswith(".weight") and ".norm." not in key


def _as_convolution(tensor: Tensor) -> Tensor:
    return tensor[..., None, None] if tensor.dim() == 2 else tensor
