"""Stable Video Diffusion's weights: the public single files, and folders as diffusers writes them, of any width."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor, nn

from motion.checkpoints.checkpoint_yaml import check_yaml, read_yaml
from motion.checkpoints.file_formats import recognise
from motion.checkpoints.loading import load_into
from motion.checkpoints.network_shapes import (
    derive_autoencoder_config,
    derive_image_encoder_config,
    derive_unet_config,
)
from motion.checkpoints.svd_folder import open_folder
from motion.checkpoints.svd_parts import SvdParts, single_file_parts
from motion.checkpoints.weight_file import open_weights
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderConfig
from motion.models.clip_vision import ClipImageEncoder, ClipImageEncoderConfig
from motion.models.temporal_decoder import ClipDecoder, FrameDecoder, LatentEncoder
from motion.models.unet import UNetConfig
from motion.models.video_unet import VideoUNet

SHORT_CLIP, LONG_CLIP = 14, 25
"""Frames that svd, and svd_xt and svd_xt_1_1, were trained with."""
NUM_VECTOR_FIELDS = 3
"""Numbers that the UNet takes beside the picture: frame rate, motion, noise."""

_INCOMPLETE = "It is incomplete; get it from where it was published."
_CHOOSE = "Choose svd, svd_xt or svd_xt_1_1: a single file, or a folder with `unet`, `vae` and `image_encoder`."
_TITLES: Mapping[str, str] = MappingProxyType(
    {"unet": "UNet", "image_encoder": "image encoder", "encoder": "encoder (VAE)", "decoder": "decoder (VAE)"}
)
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class SvdConfig:
    """Shapes of the networks.

    Attributes:
        unet: video UNet.
        autoencoder: encoder and decoder.
        image_encoder: CLIP.
        decodes_clips: the decoder has layers over frames; false in `image_decoder` variants.
        num_frames: frames of a clip in its training.
    """

    unet: UNetConfig
    autoencoder: AutoencoderConfig
    image_encoder: ClipImageEncoderConfig
    decodes_clips: bool
    num_frames: int

    @property
    def vector_channels(self) -> int:
        """Channels of the embedding of each number that the UNet takes beside the picture."""
        return (self.unet.adm_in_channels or 0) // NUM_VECTOR_FIELDS


@dataclass(frozen=True)
class SvdHints:
    """What shapes don't tell.

    Attributes:
        num_head_channels: channels of a head of the UNet; None is the public 64.
        image_heads: heads of the image encoder; None leaves it to its width.
        num_frames: frames of a clip in the training; None leaves it to the name.
    """

    num_head_channels: int | None = None
    image_heads: int | None = None
    num_frames: int | None = None


class SvdFile:
    """Open weights: their shape, and the networks one by one, so that each may have its own dtype.

    Attributes:
        path: the file or folder.
        config: shapes of its networks.
    """

    def __init__(self, path: Path, parts: SvdParts, hints: SvdHints) -> None:
        self.path = path
        self._parts = parts
        self.config = _derive_config(path, parts, hints)

    def load_unet(
        self, *, device: torch.device, dtype: torch.dtype | None, storage_dtype: torch.dtype | None = None
    ) -> VideoUNet:
        """The UNet, frozen. A `dtype` of None keeps the file's; `storage_dtype` as for `load_into`."""
        with torch.device("meta"):
            unet = VideoUNet(self.config.unet)
        return self._fill(unet, self._parts.unet, device, dtype, storage_dtype)

    def load_image_encoder(self, *, device: torch.device, dtype: torch.dtype | None) -> ClipImageEncoder:
        """The image encoder, frozen. A `dtype` of None keeps the file's."""
        with torch.device("meta"):
            encoder = ClipImageEncoder(self.config.image_encoder)
        return self._fill(encoder, self._parts.image_encoder, device, dtype)

    def load_encoder(self, *, device: torch.device, dtype: torch.dtype | None) -> LatentEncoder:
        """The encoder, frozen. A `dtype` of None keeps the file's."""
        with torch.device("meta"):
            encoder = LatentEncoder(self.config.autoencoder)
        return self._fill(encoder, self._parts.encoder, device, dtype)

    def load_decoder(self, *, device: torch.device, dtype: torch.dtype | None) -> ClipDecoder | FrameDecoder:
        """The decoder, frozen. A `dtype` of None keeps the file's."""
        with torch.device("meta"):
            config = self.config.autoencoder
            decoder = ClipDecoder(config) if self.config.decodes_clips else FrameDecoder(config)
        return self._fill(decoder, self._parts.decoder, device, dtype)

    def _fill(
        self,
        module: _Network,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype | None,
        storage_dtype: torch.dtype | None = None,
    ) -> _Network:
        load_into(module, tensors, device=device, dtype=dtype, storage_dtype=storage_dtype, path=self.path)
        return module


@contextmanager
def open_svd(path: str | Path) -> Iterator[SvdFile]:
    """Open Stable Video Diffusion's weights, a single file or a diffusers folder.

    What shapes don't tell is taken from `<name>.yaml` beside a file, in sgm's form, or a folder's config.json files.

    Raises:
        CheckpointError: it can't be read, is something else, lacks a part, or what is beside it says otherwise.
    """
    path = Path(path)
    if path.is_dir():
        with open_folder(path) as (parts, settings):
            hints = SvdHints(settings.num_head_channels, settings.image_heads, settings.num_frames)
            yield SvdFile(path, parts, hints)
        return
    with open_weights(path) as file:
        found = recognise(file.shapes)
        if found is None or found.id != "svd":
            title = found.title if found else f"a file of an unknown kind, with tensors such as `{next(iter(file))}`"
            raise CheckpointError(path, f"This is {title}, not Stable Video Diffusion.", _CHOOSE)
        yaml = read_yaml(path.with_suffix(".yaml"), "svd")
        hints = SvdHints(num_head_channels=yaml.unet.get("num_head_channels"), num_frames=yaml.num_frames)
        svd = SvdFile(path, single_file_parts(file), hints)
        check_yaml(yaml.unet, svd.config.unet, path)
        yield svd


def derive_svd_config(shapes: Mapping[str, tuple[int, ...]], path: Path) -> SvdConfig:
    """Shapes of the networks of a single file, from its keys and shapes and its name alone.

    Raises:
        CheckpointError: parts are missing or contradict each other.
    """
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    return _derive_config(path, single_file_parts(tensors), SvdHints())


def trained_frames(path: Path) -> int:
    """Frames of a clip in the training of the weights at `path`; only their name tells."""
    return LONG_CLIP if re.search(r"(?:^|[^a-z])xt(?:[^a-z]|$)", path.stem.lower()) else SHORT_CLIP


def _derive_config(path: Path, parts: SvdParts, hints: SvdHints) -> SvdConfig:
    for name, title in _TITLES.items():
        if not getattr(parts, name):
            raise CheckpointError(path, f"It holds no {title}.", _CHOOSE)
    try:
        config = _read_shapes(path, parts, hints)
    except KeyError as error:
        raise CheckpointError(path, f"It lacks {error}.", _INCOMPLETE) from error
    except IndexError as error:
        reason = "A tensor that sizes are read from has fewer axes than its name asks for."
        raise CheckpointError(path, reason, "It is damaged; get it from where it was published.") from error
    except ValueError as error:
        raise CheckpointError(path, str(error), "Put its yaml beside it, or choose another one.") from error
    return config


def _read_shapes(path: Path, parts: SvdParts, hints: SvdHints) -> SvdConfig:
    unet, image, encoder, decoder = (
        {key: tuple(part[key].shape) for key in part}
        for part in (parts.unet, parts.image_encoder, parts.encoder, parts.decoder)
    )
    config = SvdConfig(
        unet=derive_unet_config(unet, num_head_channels=hints.num_head_channels),
        autoencoder=derive_autoencoder_config({**encoder, **decoder}),
        image_encoder=derive_image_encoder_config(image, num_heads=hints.image_heads),
        decodes_clips=any(".time_stack." in key for key in decoder),
        num_frames=hints.num_frames or trained_frames(path),
    )
    _check(config)
    return config


def _check(config: SvdConfig) -> None:
    """See that the networks fit together.

    Raises:
        ValueError: they don't.
    """
    unet, latents = config.unet, config.autoencoder.embed_dim
    if (unet.in_channels, unet.out_channels) != (2 * latents, latents):
        raise ValueError(
            f"Its UNet takes {unet.in_channels} channels and gives {unet.out_channels}, but clips of {latents} latent "
            f"channels beside a picture's need {2 * latents} and {latents}."
        )
    if unet.context_dim != config.image_encoder.projection_size:
        raise ValueError(
            f"Its UNet takes pictures as {unet.context_dim} channels, its image encoder makes "
            f"{config.image_encoder.projection_size}."
        )
    if not unet.adm_in_channels or unet.adm_in_channels % (2 * NUM_VECTOR_FIELDS):
        raise ValueError(
            f"Its UNet takes a vector of {unet.adm_in_channels} channels, which three embedded numbers can't fill."
        )
