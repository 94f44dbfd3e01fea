"""The picture that becomes a clip: taken from what users have, and fitted to the clip's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from motion.errors import SettingsError
from motion.svd.choices import FITS, MIN_SIDE

_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WIDE_TO_BYTE = 257


def as_picture(image: Any) -> Image.Image:
    """A picture in mode RGB, as it is seen.

    Transparent parts lie on black, as in clips; 16 bits become 8; CMYK, palettes and grey become RGB; a camera's
    orientation is applied.

    Args:
        image: a Pillow image, or an array h w, h w 1, h w 3 or h w 4: uint8, uint16, or floats in [0, 1].

    Raises:
        SettingsError: something else, or sides of less than `MIN_SIDE` pixels.
    """
    picture = _from_array(image) if isinstance(image, np.ndarray) else image
    if not isinstance(picture, Image.Image):
        raise SettingsError(
            f"`image` must be a Pillow image or an array h w c, got {type(image).__name__}. Open or convert it."
        )
    if min(picture.size) < MIN_SIDE:
        raise SettingsError(
            f"`image` must have sides of at least {MIN_SIDE} pixels, got {picture.width}×{picture.height}. "
            "Choose a larger one."
        )
    picture = ImageOps.exif_transpose(picture) or picture
    if picture.mode in _WIDE_MODES:
        picture = Image.fromarray((np.asarray(picture, dtype=np.int64) // _WIDE_TO_BYTE).clip(0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen).convert("RGB")
    return picture.convert("RGB")


def fit_picture(picture: Image.Image, width: int, height: int, fit: str = "crop") -> Image.Image:
    """A picture scaled to a clip's size.

    Args:
        picture: in mode RGB.
        width: pixels.
        height: pixels.
        fit: one of `FITS`.

    Raises:
        SettingsError: unknown `fit`.
    """
    if fit not in FITS:
        raise SettingsError(f"`fit` must be one of {', '.join(FITS)}, got {fit!r}. Choose one of these.")
    lanczos = Image.Resampling.LANCZOS
    if picture.size == (width, height):
        return picture
    if fit == "stretch":
        return picture.resize((width, height), lanczos)
    if fit == "crop":
        return ImageOps.fit(picture, (width, height), lanczos)
    return ImageOps.pad(picture, (width, height), lanczos, color="black")


def to_tensor(picture: Image.Image) -> Tensor:
    """A picture in mode RGB as `1 3 H W` in [-1, 1], float32."""
    values = torch.from_numpy(np.array(picture, dtype=np.float32) / 255)  # h w c
    return (values.permute(2, 0, 1)[None] * 2 - 1).contiguous()  # h w c -> 1 c h w


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    shape = array.shape[:2] if array.ndim == 3 and array.shape[2] == 1 else array.shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))) or 0 in shape:
        raise SettingsError(f"`image` must be an array h w, h w 3 or h w 4, got the shape {array.shape}. Convert it.")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise SettingsError("`image` must hold floats from 0 to 1, got others. Scale them, or pass uint8.")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = (array // _WIDE_TO_BYTE).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise SettingsError(f"`image` must hold uint8, uint16 or floats, got {array.dtype}. Convert it.")
    return Image.fromarray(np.ascontiguousarray(array.reshape(shape)))
