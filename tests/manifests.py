"""Recorded key lists of public weight files: key -> (shape, dtype)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "manifests"


def manifest_names() -> list[str]:
    """Names that `read_manifest` takes, such as "mm_sd_v15_v2"."""
    return sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


def read_manifest(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Key -> (shape, dtype name as in the record) of one public file."""
    records = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return {key: (tuple(shape), str(dtype)) for key, (shape, dtype) in records.items()}


def manifest_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of one public file."""
    return {key: shape for key, (shape, _) in read_manifest(name).items()}
