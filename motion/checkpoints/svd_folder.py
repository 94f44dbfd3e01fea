"""A folder of Stable Video Diffusion's weights as diffusers writes it: `unet`, `vae`, `image_encoder`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from motion.checkpoints.svd_parts import SvdParts, folder_parts
from motion.checkpoints.weight_file import open_weights
from motion.errors import CheckpointError
from motion.models.clip_vocabulary import read_object

_REMEDY = "Download the folder whole, or choose the single file of these weights."
_OTHERS = "Choose other weights."
_ACTIVATION = "gelu"
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_ENDS = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
_CLASSES = {"unet": "UNetSpatioTemporalConditionModel", "image_encoder": "CLIPVisionModelWithProjection"}


@dataclass(frozen=True)
class FolderSettings:
    """What the folder's config.json files say that shapes don't.

    Attributes:
        num_head_channels: channels of a head of the UNet.
        image_heads: heads of the image encoder; None where it doesn't say.
        num_frames: frames of a clip in the training; None where it doesn't say.
    """

    num_head_channels: int | None
    image_heads: int | None
    num_frames: int | None


@contextmanager
def open_folder(path: Path) -> Iterator[tuple[SvdParts, FolderSettings]]:
    """Open the three files of a folder; where there are several precisions, the full one.

    Raises:
        CheckpointError: a subfolder, file or setting is missing or can't be used.
    """
    missing = [name for name in ("unet", "vae", "image_encoder") if not (path / name).is_dir()]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        raise CheckpointError(path, f"Weights of Stable Video Diffusion in a folder need {names} in it.", _REMEDY)
    settings = _read_settings(path)
    with ExitStack() as stack:
        unet, vae, image = (
            stack.enter_context(open_weights(_weights(path / name))) for name in ("unet", "vae", "image_encoder")
        )
        yield folder_parts(unet, vae, image), settings


def _weights(folder: Path) -> Path:
    """The weight file of one network."""
    names = [stem + end for end in _ENDS for stem in _STEMS]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        reason = f"There is no weight file in it, such as {names[0]} (weights cut into several files are not read)."
        raise CheckpointError(folder, reason, _REMEDY)
    return found


def _read_settings(path: Path) -> FolderSettings:
    unet, image = (_read_config(path / name / "config.json", name) for name in ("unet", "image_encoder"))
    return FolderSettings(
        _head_channels(unet, path / "unet" / "config.json"),
        _whole(image, "num_attention_heads", path / "image_encoder" / "config.json"),
        _whole(unet, "num_frames", path / "unet" / "config.json"),
    )


def _read_config(file: Path, part: str) -> Mapping[str, object]:
    content = read_object(file, _REMEDY)
    architectures = content.get("architectures")
    stated = architectures[0] if isinstance(architectures, list) and architectures else content.get("_class_name")
    if stated not in (None, _CLASSES[part]):
        raise CheckpointError(file, f"This is a {stated}, Stable Video Diffusion has a {_CLASSES[part]}.", _REMEDY)
    activation = content.get("hidden_act", _ACTIVATION)
    if activation != _ACTIVATION:
        raise CheckpointError(file, f"`hidden_act` must be {_ACTIVATION}, got {activation!r}.", _OTHERS)
    return content


def _head_channels(config: Mapping[str, object], file: Path) -> int | None:
    """Channels of a head, the same in all levels; None where the file doesn't say."""
    heads, widths = config.get("num_attention_heads"), config.get("block_out_channels")
    if heads is None or not isinstance(widths, list):
        return None
    numbers = heads if isinstance(heads, list) else [heads] * len(widths)
    wholes = [number for number in (*numbers, *widths) if isinstance(number, int) and number > 0]
    if len(wholes) == 2 * len(widths):
        sizes = {width / number for width, number in zip(widths, numbers, strict=True)}
        size = sizes.pop()
        if not sizes and size.is_integer():
            return int(size)
    reason = f"`num_attention_heads` must give heads of one size for levels of {widths} channels, got {heads}."
    raise CheckpointError(file, reason, _OTHERS)


def _whole(config: Mapping[str, object], name: str, file: Path) -> int | None:
    value = config.get(name)
    if value is not None and (not isinstance(value, int) or value < 1):
        raise CheckpointError(file, f"`{name}` must be a positive integer, got {value!r}.", _REMEDY)
    return value
