"""Infotext in image files: PNG text, EXIF, GIF comments; part of `modules.images`."""

from __future__ import annotations

import os
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from motion.standalone import shared

_USER_COMMENT = 0x9286
_UNICODE = b"UNICODE\0"
_TECHNICAL_KEYS = frozenset(
    {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "dpi",
        "exif",
        "loop",
        "background",
        "timestamp",
        "duration",
        "progressive",
        "progression",
        "icc_profile",
        "chromaticity",
        "photoshop",
    }
)
"""Entries of Pillow's `info` that no user wrote."""


def save_image_with_geninfo(
    image: Image.Image,
    geninfo: str | None,
    filename: str,
    extension: str | None = None,
    existing_pnginfo: dict[str, Any] | None = None,
    pnginfo_section_name: str = "parameters",
) -> None:
    """Write a picture with its infotext: PNG text, EXIF UserComment (JPEG, WebP, AVIF) or GIF comment.

    Args:
        image: the picture.
        geninfo: the infotext.
        filename: where to; overwritten.
        extension: with the dot, where `filename` ends otherwise.
        existing_pnginfo: further text entries of a PNG.
        pnginfo_section_name: entry that receives `geninfo`.
    """
    extension = (extension or os.path.splitext(filename)[1]).lower()
    kind = Image.registered_extensions()[extension]
    text = geninfo if shared.opts.enable_pnginfo else None
    options: dict[str, Any] = {"quality": shared.opts.jpeg_quality}
    if extension == ".png":
        entries = {**(existing_pnginfo or {}), pnginfo_section_name: text}
        info = PngInfo()
        for key, value in entries.items() if shared.opts.enable_pnginfo else ():
            if value is not None:
                info.add_text(key, str(value))
        options = {"pnginfo": info}
    elif extension in (".jpg", ".jpeg", ".webp", ".avif"):
        image = image.convert("RGB") if image.mode in ("RGBA", "P") else image
        if text is not None:
            options["exif"] = _exif(text)
        if extension == ".webp":
            options["lossless"] = shared.opts.webp_lossless
    elif extension == ".gif":
        options = {"comment": (text or "").encode()}
    image.save(filename, format=kind, **options)


def _exif(text: str) -> Image.Exif:
    make: Any = Image.Exif  # Pillow has no types for it
    exif: Image.Exif = make()
    exif[ExifTags.IFD.Exif] = {_USER_COMMENT: _UNICODE + text.encode("utf-16-be")}
    return exif


def _comments(exif: Any) -> dict[int, Any]:
    """The part of EXIF that holds the user's comment."""
    part: dict[int, Any] = exif.get_ifd(ExifTags.IFD.Exif)
    return part


def read_info_from_image(image: Image.Image) -> tuple[str | None, dict[str, Any]]:
    """(infotext or None, the other text entries) of an opened picture."""
    items = dict(image.info or {})
    text = items.pop("parameters", None)
    comment = _comments(image.getexif()).get(_USER_COMMENT) or items.get("comment")
    if comment:
        text = _decode_comment(comment)
    return text, {key: value for key, value in items.items() if key not in _TECHNICAL_KEYS}


def _decode_comment(comment: bytes | str) -> str:
    if isinstance(comment, str):
        return comment
    if comment.startswith(_UNICODE):
        return comment.removeprefix(_UNICODE).decode("utf-16-be", errors="ignore")
    return comment.removeprefix(b"ASCII\0\0\0").decode("utf8", errors="ignore")
