"""What a weight file is, told by its keys and shapes: one detector per format, of which one answers for a file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from motion.checkpoints.format_types import AnyFormat, FileFormat, MotionFormat, Shapes
from motion.checkpoints.motion_formats import MOTION_FORMATS

__all__ = ["FILE_FORMATS", "FileFormat", "MotionFormat", "Shapes", "recognise"]

_UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_INTO_CHECKPOINTS = "Put it into the web UI's folder models/Stable-diffusion and choose it there as the checkpoint."
_INTO_LORAS = "Put it into the web UI's folder models/Lora and name it in the prompt: <lora:name:1>."
_INTO_CONTROLNETS = "Put it into the folder of the ControlNet extension and choose it there."
_INTO_AUTOENCODERS = "Put it into the web UI's folder models/VAE and choose it there."
_INTO_VIDEO = "Choose it as the weights of image to video."
_BESIDE_A_MODULE = "It adds to a motion module; it does not replace one."
_NOT_YET = "which is not yet supported"


def recognise(shapes: Shapes, formats: Sequence[AnyFormat] | None = None) -> AnyFormat | None:
    """The format of a file with these keys and shapes, or None when it is of no known one.

    Args:
        shapes: key -> shape of the file.
        formats: formats to choose from, asked in turn; None means `FILE_FORMATS`.
    """
    known: Sequence[AnyFormat] = FILE_FORMATS if formats is None else formats
    return next((file_format for file_format in known if file_format.matches(shapes)), None)


def _some_key(shapes: Shapes, pattern: str) -> bool:
    search = re.compile(pattern).search
    return any(search(key) for key in shapes)


def _is_control(shapes: Shapes) -> bool:
    parts = ("controlnet_cond_embedding", "controlnet_down_blocks", "control_model", "input_hint_block", "zero_convs")
    return any(key.startswith(parts) for key in shapes)


def _is_lora(shapes: Shapes) -> bool:
    return _some_key(
        shapes, r"lora_(?:up|down|[AB])\.|_lora\.(?:up|down)\.|\.lora(?:_linear_layer)?\.(?:up|down)\.|\.hada_|\.lokr_"
    )


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
_REFINER_TEXT = r"^conditioner\.embedders\.0\.model\."
_ANY_TEXT = r"^(?:cond_stage_model|conditioner)\."


def _is_special_checkpoint(shapes: Shapes) -> bool:
    """Inpainting (9 channels), instruct-pix2pix (8), depth (5): more than noisy latents go in."""
    whole = _is_checkpoint(shapes, _ANY_TEXT, in_channels=None)
    return whole and shapes[_UNET_INPUT][1] != 4


def _is_unet_alone(shapes: Shapes) -> bool:
    ldm = _UNET_INPUT in shapes or "input_blocks.0.0.weight" in shapes
    diffusers = "conv_in.weight" in shapes and _some_key(shapes, r"^down_blocks\.") and not _names_motion(shapes)
    others = _some_key(shapes, _ANY_TEXT) or _some_key(shapes, r"\.time_stack\.") or _is_control(shapes)
    return (ldm or diffusers) and not others and not _is_svd_part(shapes)


def _is_svd_part(shapes: Shapes) -> bool:
    """The UNet, or the autoencoder with layers over frames, as diffusers writes them."""
    return _some_key(shapes, r"^(?:decoder\.)?(?:down|up)_blocks\.\d+\.resnets\.\d+\.temporal_res_block\.")


def _is_autoencoder(shapes: Shapes) -> bool:
    alone = "decoder.conv_in.weight" in shapes or "first_stage_model.decoder.conv_in.weight" in shapes
    return alone and _UNET_INPUT not in shapes and not _is_svd_part(shapes)


def _is_camera_control(shapes: Shapes) -> bool:
    return _some_key(shapes, r"\.processor\.qkv_merge\.|(?:pose|camera)_encoder|\.cc_projection\.")


def _is_image_motion(shapes: Shapes) -> bool:
    return _some_key(shapes, r"^img_encoder\.") and _names_motion(shapes)


def _is_pia(shapes: Shapes) -> bool:
    return shapes.get("conv_in.weight", ())[1:2] == (9,) and _names_motion(shapes) and not _is_control(shapes)


def _is_unknown_motion(shapes: Shapes) -> bool:
    """Motion modules with parts that no format has, from one of the many models built on AnimateDiff."""
    others = (_is_camera_control, _is_image_motion, _is_pia, _is_control, _is_lora)
    known = any(file_format.matches(shapes) for file_format in MOTION_FORMATS)
    return _names_motion(shapes) and not known and not any(matches(shapes) for matches in others)


MOTION_VARIANTS: tuple[FileFormat, ...] = (
    FileFormat(
        "sparsectrl",
        "a SparseCtrl encoder",
        "sparse_control",
        lambda shapes: _is_control(shapes) and _names_motion(shapes),
        "sd15",
        _NOT_YET,
    ),
    FileFormat("pia", "a PIA model", "motion_module", _is_pia, "sd15", _NOT_YET),
    FileFormat(
        "camera_control",
        "a CameraCtrl or MotionCtrl model",
        "motion_module",
        lambda shapes: _is_camera_control(shapes) and not _is_control(shapes),
        "sd15",
        _NOT_YET,
    ),
    FileFormat(
        "animate_lcm_i2v",
        "an AnimateLCM-I2V model",
        "motion_module",
        lambda shapes: _is_image_motion(shapes) and not _is_control(shapes),
        "sd15",
        _NOT_YET,
    ),
    FileFormat(
        "motion_variant",
        "a motion module with parts of an unknown kind",
        "motion_module",
        _is_unknown_motion,
        refusal=_NOT_YET,
    ),
    FileFormat(
        "motion_lora",
        "a motion LoRA",
        "motion_lora",
        lambda shapes: _is_lora(shapes) and _names_motion(shapes),
        remedy=_BESIDE_A_MODULE,
        usable=True,
    ),
    FileFormat(
        "domain_adapter",
        "a domain adapter",
        "domain_adapter",
        _is_domain_adapter,
        "sd15",
        remedy=_BESIDE_A_MODULE,
        usable=True,
    ),
)

OTHER_FORMATS: tuple[FileFormat, ...] = (
    FileFormat(
        "lora",
        "an ordinary LoRA",
        "lora",
        lambda shapes: _is_lora(shapes) and not _names_motion(shapes) and not _is_domain_adapter(shapes),
        remedy=_INTO_LORAS,
    ),
    FileFormat(
        "controlnet",
        "a ControlNet",
        "unknown",
        lambda shapes: _is_control(shapes) and not _names_motion(shapes),
        remedy=_INTO_CONTROLNETS,
    ),
    FileFormat(
        "svd",
        "a Stable Video Diffusion checkpoint",
        "svd",
        lambda shapes: _some_key(shapes, r"^model\.diffusion_model\..*\.time_stack\."),
        remedy=_INTO_VIDEO,
        usable=True,
    ),
    FileFormat(
        "svd_part",
        "a part of a Stable Video Diffusion folder",
        "unknown",
        _is_svd_part,
        remedy="Choose the folder that holds `unet`, `vae` and `image_encoder` as the weights of image to video.",
    ),
    FileFormat(
        "sd1",
        "a Stable Diffusion 1 checkpoint",
        "checkpoint",
        lambda shapes: _is_checkpoint(shapes, _SD1_TEXT),
        "sd15",
        remedy=_INTO_CHECKPOINTS,
    ),
    FileFormat(
        "sd2",
        "a Stable Diffusion 2 checkpoint",
        "checkpoint",
        lambda shapes: _is_checkpoint(shapes, _SD2_TEXT),
        remedy=_INTO_CHECKPOINTS,
    ),
    FileFormat(
        "sdxl",
        "an SDXL checkpoint",
        "checkpoint",
        lambda shapes: _is_checkpoint(shapes, _SDXL_TEXT) and not _some_key(shapes, _REFINER_TEXT),
        "sdxl",
        remedy=_INTO_CHECKPOINTS,
    ),
    FileFormat(
        "sdxl_refiner",
        "an SDXL refiner checkpoint",
        "checkpoint",
        lambda shapes: _is_checkpoint(shapes, _REFINER_TEXT),
        remedy=_INTO_CHECKPOINTS,
    ),
    FileFormat(
        "special_checkpoint",
        "an inpainting, depth or instruct-pix2pix checkpoint",
        "checkpoint",
        _is_special_checkpoint,
        remedy=_INTO_CHECKPOINTS,
    ),
    FileFormat("unet", "a UNet without text encoder and autoencoder", "unknown", _is_unet_alone),
    FileFormat("autoencoder", "an autoencoder (VAE)", "unknown", _is_autoencoder, remedy=_INTO_AUTOENCODERS),
)

FILE_FORMATS: tuple[FileFormat | MotionFormat, ...] = (*MOTION_FORMATS, *MOTION_VARIANTS, *OTHER_FORMATS)
