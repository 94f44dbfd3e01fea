"""Regions and fillings for inpainting: `modules.masking`."""

from __future__ import annotations

from PIL import Image, ImageFilter, ImageOps

Region = tuple[int, int, int, int]
_FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))  # (radius in pixels, how often it is laid over)


def get_crop_region_v2(mask: Image.Image, pad: int = 0) -> Region | None:
    """(left, top, right, bottom) of what is white in `mask`, with `pad` pixels around; None for a black mask."""
    box = mask.getbbox()
    if box is None:
        return None
    left, top, right, bottom = box
    return max(left - pad, 0), max(top - pad, 0), min(right + pad, mask.width), min(bottom + pad, mask.height)


def get_crop_region(mask: Image.Image, pad: int = 0) -> Region:
    """The same; for a black mask an empty region (its left is right of its right)."""
    return get_crop_region_v2(mask, pad) or (max(mask.width - pad, 0), max(mask.height - pad, 0), pad, pad)


def expand_crop_region(
    crop_region: Region, processing_width: int, processing_height: int, image_width: int, image_height: int
) -> Region:
    """`crop_region` grown, inside the image, to the proportions in which it will be processed."""
    left, top, right, bottom = crop_region
    width, height = right - left, bottom - top
    ratio = processing_width / processing_height
    if width / height > ratio:
        top, bottom = _grow(top, bottom, int(width / ratio - height), image_height)
    else:
        left, right = _grow(left, right, int(height * ratio - width), image_width)
    return left, top, right, bottom


def _grow(start: int, end: int, extra: int, limit: int) -> tuple[int, int]:
    start, end = start - extra // 2, end + extra - extra // 2
    if end > limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, end - start
    return start, min(end, limit)


def fill(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`image` with what is white in `mask` painted over by blurred surroundings."""
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    result = Image.new("RGBA", image.size)
    for radius, times in _FILL_BLURS:
        blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(blurred)
    return result.convert("RGB")
