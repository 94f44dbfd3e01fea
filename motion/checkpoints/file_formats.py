"""What a weight file is, told by its keys and shapes: one detector per format, of which one answers for a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_MOTION_KEY = re.compile(r"(?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+\.temporal_transformer\.(.+)")
_MOTION_PART = re.compile(r"(?:norm|proj_in|proj_out|transformer_blocks\.\d+\.(?:attention_blocks|norms|ff|ff_norm))\b")
_UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


@dataclass(frozen=True)
class FileFormat:
    """A format of weight files.

    Attributes:
        id: short name.
        title: what a message calls such a file, with its article.
        matches: key -> shape of a file; true for files of this format only.
    """

    id: str
    title: str
    matches: Callable[[Shapes], bool]


def recognise(shapes: Shapes) -> FileFormat | None:
    """The format of a file with these keys and shapes, or None when it is of no known one."""
    return next((file_format for file_format in FILE_FORMATS if file_format.matches(shapes)), None)


def _some_key(shapes: Shapes, pattern: str) -> bool:
    search = re.compile(pattern).search
    return any(search(key) for key in shapes)


def _is_motion(shapes: Shapes) -> bool:
    """Motion modules and nothing else, in AnimateDiff's spelling."""
    found = (_MOTION_KEY.fullmatch(key) for key in shapes)
    return all(match is not None and "_lora." not in match[1] and _MOTION_PART.match(match[1]) for match in found)


def position_table_length(shapes: Shapes) -> int | None:
    """Rows of the position tables of a motion module file, or None where it has no table."""
    return next((shape[1] for key, shape in shapes.items() if key.endswith(".pe") and len(shape) == 3), None)


def _is_animatediff(shapes: Shapes, *, sdxl: bool, mid: bool, length: Callable[[int], bool]) -> bool:
    """A motion module file with a position table; SDXL's UNet has three levels, SD1.5's four."""
    rows = position_table_length(shapes)
    has_mid = any(key.startswith("mid_block.") for key in shapes)
    three_levels = _some_key(shapes, r"^down_blocks\.2\.") and not _some_key(shapes, r"^down_blocks\.3\.")
    return (rows is not None and length(rows) and has_mid == mid and (three_levels and not mid) == sdxl) and _is_motion(
        shapes
    )


def _is_motion_beside_unet(shapes: Shapes) -> bool:
    return _some_key(shapes, r"\.motion_modules\.") and "conv_in.weight" in shapes and not _is_control(shapes)


def _is_control(shapes: Shapes) -> bool:
    return _some_key(shapes, r"controlnet_cond_embedding\.|^control_model\.|^zero_convs\.|^controlnet_down_blocks\.")


def _is_lora(shapes: Shapes) -> bool:
    return _some_key(shapes, r"lora_(?:up|down|[AB])\.|_lora\.(?:up|down)\.|\.lora\.(?:up|down)\.|\.hada_|\.lokr_")


def _names_motion(shapes: Shapes) -> bool:
    return _some_key(shapes, r"motion_modules[._]|temporal_attentions\.")


def _is_domain_adapter(shapes: Shapes) -> bool:
    return _some_key(shapes, r"\.attn[12]\.processor\.to_\w+_lora\.") and not _names_motion(shapes)


def _is_checkpoint(shapes: Shapes, text_keys: str, in_channels: int | None = 4) -> bool:
    """A whole LDM checkpoint with an image UNet and the text encoder of one family."""
    shape = shapes.get(_UNET_INPUT)
    fits = shape is not None and len(shape) == 4 and in_channels in (None, shape[1])
    return fits and not _some_key(shapes, r"\.time_stack\.") and _some_key(shapes, text_keys)


_SD1_TEXT = r"^cond_stage_model\.transformer\."
_SD2_TEXT = r"^cond_stage_model\.model\."
_SDXL_TEXT = r"^conditioner\.embedders\."
_ANY_TEXT = r"^(?:cond_stage_model|conditioner)\."


def _is_special_checkpoint(shapes: Shapes) -> bool:
    """Inpainting (9 channels), instruct-pix2pix (8), depth (5): more than noisy latents go in."""
    whole = _is_checkpoint(shapes, _ANY_TEXT, in_channels=None)
    return whole and shapes[_UNET_INPUT][1] != 4


def _is_unet_alone(shapes: Shapes) -> bool:
    ldm = _UNET_INPUT in shapes or "input_blocks.0.0.weight" in shapes
    diffusers = "conv_in.weight" in shapes and _some_key(shapes, r"^down_blocks\.") and not _names_motion(shapes)
    others = _some_key(shapes, _ANY_TEXT) or _some_key(shapes, r"\.time_stack\.") or _is_control(shapes)
    return (ldm or diffusers) and not others


def _is_autoencoder(shapes: Shapes) -> bool:
    alone = "decoder.conv_in.weight" in shapes or "first_stage_model.decoder.conv_in.weight" in shapes
    return alone and _UNET_INPUT not in shapes


FILE_FORMATS: tuple[FileFormat, ...] = (
    FileFormat(
        "sd15_v1",
        "an AnimateDiff v1 motion module for SD1.5",
        lambda shapes: _is_animatediff(shapes, sdxl=False, mid=False, length=lambda rows: rows == 24),
    ),
    FileFormat(
        "sd15_v2",
        "an AnimateDiff v2 motion module for SD1.5",
        lambda shapes: _is_animatediff(shapes, sdxl=False, mid=True, length=lambda rows: True),
    ),
    FileFormat(
        "sd15_v3",
        "an AnimateDiff v3 motion module for SD1.5",
        lambda shapes: _is_animatediff(shapes, sdxl=False, mid=False, length=lambda rows: rows != 24),
    ),
    FileFormat(
        "sdxl_beta",
        "an AnimateDiff motion module for SDXL",
        lambda shapes: _is_animatediff(shapes, sdxl=True, mid=False, length=lambda rows: rows != 24),
    ),
    FileFormat(
        "hotshot_converted",
        "a HotShot-XL motion module in AnimateDiff's spelling",
        lambda shapes: _is_animatediff(shapes, sdxl=True, mid=False, length=lambda rows: rows == 24),
    ),
    FileFormat(
        "hotshot",
        "a HotShot-XL motion module",
        lambda shapes: _some_key(shapes, r"\.temporal_attentions\.") and not _is_lora(shapes),
    ),
    FileFormat(
        "animatelcm",
        "an AnimateLCM motion module",
        lambda shapes: position_table_length(shapes) is None and _is_motion(shapes),
    ),
    FileFormat(
        "diffusers_adapter",
        "a motion adapter in diffusers' spelling",
        lambda shapes: (
            _some_key(shapes, r"\.motion_modules\.\d+\.(?:norm|proj_in|transformer_blocks)\b")
            and not _is_lora(shapes)
            and not _is_control(shapes)
            and "conv_in.weight" not in shapes
        ),
    ),
    FileFormat(
        "pia",
        "a PIA model",
        lambda shapes: _is_motion_beside_unet(shapes) and shapes["conv_in.weight"][1:2] == (9,),
    ),
    FileFormat(
        "motion_training",
        "a training checkpoint with motion modules and a UNet",
        lambda shapes: _is_motion_beside_unet(shapes) and shapes["conv_in.weight"][1:2] != (9,),
    ),
    FileFormat("motion_lora", "a motion LoRA", lambda shapes: _is_lora(shapes) and _names_motion(shapes)),
    FileFormat("domain_adapter", "a domain adapter", _is_domain_adapter),
    FileFormat(
        "lora",
        "a LoRA",
        lambda shapes: _is_lora(shapes) and not _names_motion(shapes) and not _is_domain_adapter(shapes),
    ),
    FileFormat("sparsectrl", "a SparseCtrl encoder", lambda shapes: _is_control(shapes) and _names_motion(shapes)),
    FileFormat("controlnet", "a ControlNet", lambda shapes: _is_control(shapes) and not _names_motion(shapes)),
    FileFormat(
        "svd",
        "a Stable Video Diffusion checkpoint",
        lambda shapes: _some_key(shapes, r"^model\.diffusion_model\..*\.time_stack\."),
    ),
    FileFormat("sd1", "a Stable Diffusion 1 checkpoint", lambda shapes: _is_checkpoint(shapes, _SD1_TEXT)),
    FileFormat("sd2", "a Stable Diffusion 2 checkpoint", lambda shapes: _is_checkpoint(shapes, _SD2_TEXT)),
    FileFormat("sdxl", "a Stable Diffusion XL checkpoint", lambda shapes: _is_checkpoint(shapes, _SDXL_TEXT)),
    FileFormat("special_checkpoint", "an inpainting, depth or instruct-pix2pix checkpoint", _is_special_checkpoint),
    FileFormat("unet", "a UNet without text encoder and autoencoder", _is_unet_alone),
    FileFormat("autoencoder", "an autoencoder (VAE)", _is_autoencoder),
)
