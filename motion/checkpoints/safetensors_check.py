"""Which tensor of a safetensors file is wrong, once its reader has refused the file as a whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

_BITS = {"F4": 4, "F6": 6, "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64, "BOOL": 8}
_LENGTH_BYTES = 8


def find_wrong_tensor(path: Path) -> str | None:
    """A sentence about the first tensor whose place in the file is not what its shape and type need, if there is one.

    The header's layout: https://github.com/huggingface/safetensors#format
    """
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            data_bytes = path.stat().st_size - _LENGTH_BYTES - header_bytes
            header = json.loads(file.read(header_bytes)) if data_bytes >= 0 else {}
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        return next(filter(None, (_fault(key, entries[key], data_bytes) for key in entries)), None)
    except (OSError, ValueError, ArithmeticError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        return None


def _fault(key: str, entry: dict[str, Any], data_bytes: int) -> str | None:
    begin, end = entry["data_offsets"]
    if end > data_bytes:
        return f"`{key[:200]}` ends at byte {end} of the data, of which the file has {data_bytes}."
    dtype = entry["dtype"]
    bits = _BITS.get(dtype) or int(dtype.split("_")[0].lstrip("FUI"))
    needed = math.prod(entry["shape"]) * bits // 8
    if needed != end - begin:
        return (
            f"`{key[:200]}` of shape {entry['shape']} in {dtype} needs {needed} bytes, the file gives it {end - begin}."
        )
    return None
