"""Single-file Stable Diffusion 1 checkpoints, of any width, with an optional `<name>.yaml` beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from motion.checkpoints.file_formats import recognise
from motion.checkpoints.loading import load_into
from motion.checkpoints.network_shapes import (
    derive_autoencoder_config,
    derive_text_encoder_config,
    derive_unet_config,
)
from motion.checkpoints.weight_file import LazyTensors, WeightFile, open_weights
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.unet import UNetConfig, UNetModel

UNET_PREFIX = "model.diffusion_model."
AUTOENCODER_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model."

_TRAINING_ONLY = ("loss.", "model_ema.")
_TEXT_BRANCHES = ("embeddings.", "encoder.", "final_layer_norm.")
_YAML_MODEL = {
    "parameterization": "eps",
    "scale_factor": 0.18215,
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
}
"""What a yaml may say of the model as a whole: the values that every checkpoint of this family was trained with."""
_YAML_UNET = ("in_channels", "out_channels", "model_channels", "channel_mult", "num_res_blocks", "context_dim")
"""What a yaml says of the UNet that its tensors say too; both must agree."""

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class StableDiffusionConfig:
    """Shapes of a checkpoint's three networks."""

    unet: UNetConfig
    autoencoder: AutoencoderConfig
    text_encoder: ClipTextEncoderConfig


class StableDiffusionFile:
    """An open checkpoint: its shape, and its networks one by one, so that each may have its own dtype.

    Attributes:
        path: the file.
        config: shapes of its networks.
    """

    def __init__(self, file: WeightFile) -> None:
        self.path = file.path
        self._unet = file.part(UNET_PREFIX)
        self._autoencoder = _autoencoder_part(file)
        self._text_encoder = _text_part(file)
        self.config = self._derive_config(file)

    def load_unet(self, *, device: torch.device, dtype: torch.dtype | None) -> UNetModel:
        """The UNet, frozen. A `dtype` of None keeps the file's."""
        return self._fill(UNetModel, self.config.unet, self._unet, device, dtype)

    def load_autoencoder(self, *, device: torch.device, dtype: torch.dtype | None) -> AutoencoderKL:
        """The autoencoder, frozen. A `dtype` of None keeps the file's."""
        return self._fill(AutoencoderKL, self.config.autoencoder, self._autoencoder, device, dtype)

    def load_text_encoder(self, *, device: torch.device, dtype: torch.dtype | None) -> ClipTextEncoder:
        """The text encoder, frozen. A `dtype` of None keeps the file's."""
        return self._fill(ClipTextEncoder, self.config.text_encoder, self._text_encoder, device, dtype)

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

    def _derive_config(self, file: WeightFile) -> StableDiffusionConfig:
        parts = (self._unet, self._autoencoder, self._text_encoder)
        unet, autoencoder, text = ({key: tuple(part[key].shape) for key in part} for part in parts)
        if not autoencoder:
            remedy = "Choose a version of it that has one."
            raise CheckpointError(self.path, "This checkpoint holds no autoencoder (VAE).", remedy)
        settings = _read_yaml(file.path.with_suffix(".yaml"))
        try:
            config = StableDiffusionConfig(
                derive_unet_config(
                    unet, num_heads=settings.get("num_heads"), num_head_channels=settings.get("num_head_channels")
                ),
                derive_autoencoder_config(autoencoder),
                derive_text_encoder_config(text),
            )
        except KeyError as error:
            reason = f"The checkpoint lacks {error}."
            raise CheckpointError(self.path, reason, "It is incomplete; get it from where it was published.") from error
        except ValueError as error:
            raise CheckpointError(self.path, str(error), "Put its yaml beside it, or choose another one.") from error
        _check_yaml(settings, config, file.path)
        return config


@contextmanager
def open_checkpoint(path: str | Path) -> Iterator[StableDiffusionFile]:
    """Open a Stable Diffusion 1 checkpoint.

    Raises:
        CheckpointError: the file can't be read, is something else, lacks a part, or its yaml says otherwise.
    """
    with open_weights(path) as file:
        found = recognise(file.shapes)
        if found is None or found.id != "sd1":
            title = found.title if found else f"a file of an unknown kind, with tensors such as `{next(iter(file))}`"
            reason = f"This is {title}, which can't be used as a checkpoint here."
            raise CheckpointError(file.path, reason, "Choose a single-file Stable Diffusion 1 checkpoint.")
        yield StableDiffusionFile(file)


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


def _text_part(file: WeightFile) -> Mapping[str, Tensor]:
    """The text encoder's tensors; files made with old versions of transformers lack the level "text_model"."""
    names = {}
    for key in file:
        name = key.removeprefix(TEXT_PREFIX + "transformer.")
        if name == key or name.endswith(".position_ids"):
            continue
        if name.startswith(_TEXT_BRANCHES):
            name = "text_model." + name
        if name.startswith("text_model."):
            names["transformer." + name] = key
    return LazyTensors(file.__getitem__, names)


def _read_yaml(path: Path) -> dict[str, Any]:
    """What the yaml beside a checkpoint says of its UNet; empty where there is none.

    Raises:
        CheckpointError: it can't be read, or describes another kind of model.
    """
    if not path.is_file():
        return {}
    remedy = "Correct it, or remove it to take everything from the checkpoint's shapes."
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        model = content["model"]["params"]
        unet = model["unet_config"]["params"]
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise CheckpointError(path, f"The file can't be read ({error}).", remedy) from error
    except (KeyError, TypeError) as error:
        reason = "The file has no `model.params.unet_config.params`."
        raise CheckpointError(path, reason, remedy) from error
    for name, expected in _YAML_MODEL.items():
        if model.get(name, expected) != expected:
            reason = f"`{name}` must be {expected} for a Stable Diffusion 1 checkpoint, got {model[name]}."
            raise CheckpointError(path, reason, "Choose another checkpoint.")
    return {**unet, **{name: _read_heads(unet, name, path) for name in ("num_heads", "num_head_channels")}}


def _read_heads(unet: Mapping[str, Any], name: str, path: Path) -> int | None:
    """A number of heads, or of channels per head; ldm writes -1 where the other one counts."""
    value = unet.get(name, -1)
    if value in (-1, None):
        return None
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(path, f"`{name}` must be a positive integer or -1, got {value!r}.", "Correct it.")
    return value


def _check_yaml(settings: Mapping[str, Any], config: StableDiffusionConfig, path: Path) -> None:
    """Refuse a yaml that contradicts the shapes: it belongs to another checkpoint."""
    for name in _YAML_UNET:
        actual = getattr(config.unet, name)
        stated = settings.get(name, actual)
        if (tuple(stated) if isinstance(stated, list) else stated) != actual:
            reason = f"`{name}` of its yaml is {stated}, but its tensors say {actual}."
            raise CheckpointError(path, reason, "Put the yaml of this checkpoint beside it, or remove the yaml.")
