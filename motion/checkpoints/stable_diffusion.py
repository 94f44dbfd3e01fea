"""Single-file Stable Diffusion 1 and SDXL checkpoints, of any width, with an optional `<name>.yaml` beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from motion.checkpoints.checkpoint_yaml import check_yaml, read_yaml
from motion.checkpoints.file_formats import recognise
from motion.checkpoints.loading import load_into
from motion.checkpoints.network_shapes import (
    derive_autoencoder_config,
    derive_text_encoder_config,
    derive_unet_config,
)
from motion.checkpoints.sdxl_text import CLIP_PREFIX, open_clip_part
from motion.checkpoints.text_folder import TextFolder, read_text_folder
from motion.checkpoints.weight_file import LazyTensors, WeightFile, open_weights
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.clip_tokenizer import VOCABULARY_SIZE, ClipTokenizer
from motion.models.size_embedding import NUM_SIZES, SIZE_CHANNELS
from motion.models.unet import UNetConfig, UNetModel

UNET_PREFIX = "model.diffusion_model."
AUTOENCODER_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."

_TRAINING_ONLY = ("loss.", "model_ema.")
_TEXT_BRANCHES = ("embeddings.", "encoder.", "final_layer_norm.")
_BASES: Mapping[str, str] = MappingProxyType({"sd1": "sd15", "sdxl": "sdxl"})
"""Format of a checkpoint that can be used -> its family."""
_V_PREDICTION_KEY = "v_pred"
"""A tensor by which trainers mark SDXL checkpoints that predict v; nothing else in the file tells."""

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class StableDiffusionConfig:
    """Shapes of a checkpoint's networks.

    Attributes:
        unet: UNet.
        autoencoder: autoencoder.
        text_encoder: CLIP.
        second_text_encoder: SDXL's OpenCLIP; None in SD1.
    """

    unet: UNetConfig
    autoencoder: AutoencoderConfig
    text_encoder: ClipTextEncoderConfig
    second_text_encoder: ClipTextEncoderConfig | None = None


class StableDiffusionFile:
    """An open checkpoint: its shape, and its networks one by one, so that each may have its own dtype.

    Attributes:
        path: the file.
        base: its family, "sd15" or "sdxl".
        config: shapes of its networks.
    """

    def __init__(self, file: WeightFile, base: str) -> None:
        self.path = file.path
        self.base = base
        self._unet = file.part(UNET_PREFIX)
        self._autoencoder = _autoencoder_part(file)
        self._text_encoder = _text_part(file, CLIP_PREFIX if base == "sdxl" else TEXT_PREFIX)
        self._second_text_encoder = open_clip_part(file) if base == "sdxl" else {}
        self._text_folder: TextFolder | None = None
        self.config = self._derive_config()

    def load_unet(self, *, device: torch.device, dtype: torch.dtype | None) -> UNetModel:
        """The UNet, frozen. A `dtype` of None keeps the file's."""
        return self._fill(UNetModel, self.config.unet, self._unet, device, dtype)

    def load_autoencoder(self, *, device: torch.device, dtype: torch.dtype | None) -> AutoencoderKL:
        """The autoencoder, frozen. A `dtype` of None keeps the file's."""
        return self._fill(AutoencoderKL, self.config.autoencoder, self._autoencoder, device, dtype)

    def load_text_encoder(self, *, device: torch.device, dtype: torch.dtype | None) -> ClipTextEncoder:
        """The text encoder, frozen. A `dtype` of None keeps the file's."""
        return self._fill(ClipTextEncoder, self.config.text_encoder, self._text_encoder, device, dtype)

    def load_tokenizer(self) -> ClipTokenizer:
        """The tokenizer of its text encoders."""
        return ClipTokenizer() if self._text_folder is None else self._text_folder.tokenizer

    def load_second_text_encoder(self, *, device: torch.device, dtype: torch.dtype | None) -> ClipTextEncoder:
        """SDXL's second text encoder, frozen. A `dtype` of None keeps the file's."""
        return self._fill(ClipTextEncoder, self.config.second_text_encoder, self._second_text_encoder, device, dtype)

    def _fill(
        self,
        network: type[_Network],
        config: Any,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> _Network:
        with torch.device("meta"):
            module = network(config)
        load_into(module, tensors, device=device, dtype=dtype, path=self.path)
        return module

    def _derive_config(self) -> StableDiffusionConfig:
        if not self._autoencoder:
            remedy = "Choose a version of it that has one."
            raise CheckpointError(self.path, "This checkpoint holds no autoencoder (VAE).", remedy)
        settings = read_yaml(self.path.with_suffix(".yaml"), self.base)
        if settings.text_folder is not None:
            self._text_folder = read_text_folder(settings.text_folder)
        try:
            config = self._read_shapes(settings.unet)
        except KeyError as error:
            reason = f"The checkpoint lacks {error}."
            raise CheckpointError(self.path, reason, "It is incomplete; get it from where it was published.") from error
        except IndexError as error:
            reason = "A tensor that sizes are read from has fewer axes than its name asks for."
            raise CheckpointError(self.path, reason, "It is damaged; get it from where it was published.") from error
        except ValueError as error:
            raise CheckpointError(self.path, str(error), "Put its yaml beside it, or choose another one.") from error
        check_yaml(settings.unet, config.unet, self.path)
        return config

    def _read_shapes(self, settings: Mapping[str, Any]) -> StableDiffusionConfig:
        parts = (self._unet, self._autoencoder, self._text_encoder, self._second_text_encoder)
        unet, autoencoder, text, second = ({key: tuple(part[key].shape) for key in part} for part in parts)
        heads = {name: settings.get(name) for name in ("num_heads", "num_head_channels")}
        config = StableDiffusionConfig(
            derive_unet_config(unet, **heads),
            derive_autoencoder_config(autoencoder),
            self._complete_text(derive_text_encoder_config(text)),
            derive_text_encoder_config(second, hidden_act="gelu") if self.base == "sdxl" else None,
        )
        _check_conditions(config)
        return config

    def _complete_text(self, shapes: ClipTextEncoderConfig) -> ClipTextEncoderConfig:
        """The first text encoder's shape with what its folder says.

        Raises:
            CheckpointError: the two contradict each other, or an SD1 checkpoint with a vocabulary of its own has none.
        """
        if self._text_folder is not None:
            return self._text_folder.complete(shapes)
        if self.base == "sd15" and shapes.vocabulary_size < VOCABULARY_SIZE:
            reason = f"Its text encoder has {shapes.vocabulary_size} tokens, so its vocabulary is not CLIP's."
            remedy = "Put its yaml and the folder that the yaml names beside it, as they came with it."
            raise CheckpointError(self.path, reason, remedy)
        return shapes


@contextmanager
def open_checkpoint(path: str | Path) -> Iterator[StableDiffusionFile]:
    """Open a Stable Diffusion 1 or SDXL checkpoint.

    Raises:
        CheckpointError: the file can't be read, is something else, lacks a part, or its yaml says otherwise.
    """
    with open_weights(path) as file:
        found = recognise(file.shapes)
        if found is None or found.id not in _BASES:
            title = found.title if found else f"a file of an unknown kind, with tensors such as `{next(iter(file))}`"
            reason = f"This is {title}, which can't be used as a checkpoint here."
            raise CheckpointError(file.path, reason, "Choose a single-file Stable Diffusion 1 or SDXL checkpoint.")
        if _V_PREDICTION_KEY in file:
            reason = (
                f"This is {found.title} that predicts v (it has `{_V_PREDICTION_KEY}`), which is not yet supported."
            )
            raise CheckpointError(file.path, reason, "Choose one that predicts noise.")
        yield StableDiffusionFile(file, _BASES[found.id])


def inspect_checkpoint(path: str | Path) -> StableDiffusionConfig:
    """Shapes of a checkpoint's networks.

    Raises:
        CheckpointError: as `open_checkpoint`.
    """
    with open_checkpoint(path) as checkpoint:
        return checkpoint.config


def _autoencoder_part(file: WeightFile) -> Mapping[str, Tensor]:
    names = {key.removeprefix(AUTOENCODER_PREFIX): key for key in file if key.startswith(AUTOENCODER_PREFIX)}
    kept = {name: key for name, key in names.items() if not name.startswith(_TRAINING_ONLY)}
    return LazyTensors(file.__getitem__, kept)


def _check_conditions(config: StableDiffusionConfig) -> None:
    """See that what the text encoders make is as wide as what the UNet takes.

    Raises:
        KeyError: SDXL's second text encoder has no projection.
        ValueError: it isn't, or SDXL's encoders have no last layer but one.
    """
    first, second = config.text_encoder, config.second_text_encoder
    widths = [encoder.hidden_size for encoder in (first, second) if encoder is not None]
    if sum(widths) != config.unet.context_dim:
        raise ValueError(f"Its UNet takes texts of {config.unet.context_dim} channels, its encoders make {widths}.")
    if second is None:
        return
    layers = (first.num_layers, second.num_layers)
    if min(layers) < 2:
        raise ValueError(f"SDXL takes the last but one layer of its text encoders, but these have {layers} layers.")
    if second.projection_size is None:
        raise KeyError("conditioner.embedders.1.model.text_projection")
    vector = second.projection_size + NUM_SIZES * SIZE_CHANNELS
    if config.unet.adm_in_channels != vector:
        raise ValueError(
            f"Its UNet takes a vector of {config.unet.adm_in_channels} channels, text and sizes make {vector}."
        )


def _text_part(file: WeightFile, prefix: str) -> Mapping[str, Tensor]:
    """CLIP's tensors; files made with old versions of transformers lack the level "text_model"."""
    names = {}
    for key in file:
        name = key.removeprefix(prefix)
        if name == key or name.endswith(".position_ids"):
            continue
        if name.startswith(_TEXT_BRANCHES):
            name = "text_model." + name
        if name.startswith("text_model."):
            names["transformer." + name] = key
    return LazyTensors(file.__getitem__, names)
