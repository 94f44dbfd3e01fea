"""What a file holds, told by its first bytes. Suffixes are not trusted: many files carry the wrong one."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from motion.errors import CheckpointError

_HEAD_BYTES = 512
DOWNLOAD_AGAIN = "Download it again, and compare its size with the one that the page of the file states."


class FileKind(Enum):
    """How tensors are stored in a file."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "PyTorch archive"
    TORCH_PICKLE = "old-style PyTorch pickle"


def detect_kind(path: Path) -> FileKind:
    """How the tensors of the file at `path` are stored.

    Raises:
        CheckpointError: there is no such file, it can't be read, or its first bytes are not those of a weight file.
    """
    if path.is_dir():
        raise CheckpointError(path, "This is a folder, not a weight file.", "Choose a file inside it.")
    if path.exists() and not path.is_file():
        raise CheckpointError(path, "This is a pipe or a device, not a file.", "Choose a file.")
    head, num_bytes = _read_head(path)
    if num_bytes == 0:
        raise CheckpointError(path, "The file is empty.", DOWNLOAD_AGAIN)
    if head.startswith(b"PK\x03\x04"):
        return FileKind.TORCH_ZIP
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return FileKind.TORCH_PICKLE
    _refuse_text(path, head)
    if head[8:9] == b"{" or (num_bytes < 9 and path.suffix == ".safetensors"):
        if num_bytes < 10 or int.from_bytes(head[:8], "little") > num_bytes - 8:
            raise CheckpointError(path, f"The file is cut short: it ends at {num_bytes} bytes.", DOWNLOAD_AGAIN)
        return FileKind.SAFETENSORS
    raise CheckpointError(
        path,
        f"This is no weight file: it starts with {head[:8]!r}.",
        "Choose a .safetensors, .ckpt, .pt, .pth or .bin file.",
    )


def _read_head(path: Path) -> tuple[bytes, int]:
    """First bytes of the file, and its size."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise CheckpointError(path, "There is no such file.", "Check the path, or refresh the list.") from None
    except OSError as error:
        reason = f"The file can't be read ({error.strerror or error})."
        raise CheckpointError(path, reason, "Check the permissions of the file and of its disk.") from error


def _refuse_text(path: Path, head: bytes) -> None:
    """Refuse the two texts that downloads leave in place of weights."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            path, "This is a Git LFS pointer, not the weights.", "Run `git lfs pull`, or download the file itself."
        )
    if text.startswith(b"<"):
        raise CheckpointError(
            path,
            "This is a web page saved under the name of a weight file.",
            "Download the file itself; a page that asks for a login or a licence is often saved in its place.",
        )
