"""Recorded numbers in tests/data/goldens; the JSON of the same name says what each is."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent / "data" / "goldens"


def read_golden(name: str) -> dict[str, Tensor]:
    """Tensors of one golden, `in.*` and `out.*`."""
    return load_file(FOLDER / f"{name}.safetensors")
