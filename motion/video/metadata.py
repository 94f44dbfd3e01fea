"""Infotext (generation parameters) in our files: made fit for every container, and read back."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from motion.errors import OutputError
from motion.video.mp4 import read_mp4_comment

logger = logging.getLogger(__name__)

PNG_KEY = "parameters"
"""Keyword of the PNG text chunk, the one that web UIs use."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean_infotext(infotext: str) -> str:
    """`infotext` with NUL and lone surrogates, which no container can hold, replaced by U+FFFD; logged.

    They are not refused: when infotext is written the frames exist, and are worth more than a stray character.
    """
    clean, count = _UNSTORABLE.subn("\N{REPLACEMENT CHARACTER}", infotext)
    if count:
        logger.warning("Infotext: %d characters that files can't hold (NUL, lone surrogates) were replaced.", count)
    return clean


def read_infotext(path: str | Path) -> str:
    """Infotext of an MP4 (comment tag), GIF (comment block) or PNG (text chunk `parameters`); "" when it has none.

    The kind of file is told by its first bytes, whatever its name.

    Raises:
        OutputError: the file can't be read or is of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if head[4:8] == b"ftyp":
            return read_mp4_comment(path)
        if head.startswith((b"GIF8", b"\x89PNG")):
            return _read_image_text(path)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise OutputError(f"{path} must be a readable MP4, GIF or PNG, got: {error}. Choose another file.") from error
    raise OutputError(f"{path} must be an MP4, GIF or PNG, got a file that starts with {head!r}. Choose another file.")


def _read_image_text(path: Path) -> str:
    with Image.open(path) as image:
        if isinstance(image, PngImageFile):
            return str(image.text.get(PNG_KEY, ""))
        comment = image.info.get("comment", b"")
    return comment.decode("utf-8", errors="replace") if isinstance(comment, bytes) else str(comment)
