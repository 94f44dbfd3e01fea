"""How long a folder of 200 weight files takes to list: the first time, and with the cache of headers.

usage: python -m benchmarks.list_models
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from motion.checkpoints.library import ModelLibrary

NUM_FILES = 200
LAYER = (
    "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
)


def seconds_to_list(folder: Path, cache: Path) -> float:
    """Time of one listing by a library that has just been made."""
    began = time.perf_counter()
    entries = ModelLibrary([folder], cache).entries()
    seconds = time.perf_counter() - began
    if len(entries) != NUM_FILES:
        raise RuntimeError(f"expected {NUM_FILES} files, listed {len(entries)}")
    return seconds


def main() -> None:
    """Print both times and their ratio, then one JSON object."""
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "models", Path(name) / "cache.json"
        folder.mkdir()
        for number in range(NUM_FILES):
            tensors = {f"{LAYER}.down.weight": torch.zeros(4, 32), f"{LAYER}.up.weight": torch.zeros(32, 4)}
            save_file(tensors, folder / f"{number:03d}.safetensors")
        first, second = seconds_to_list(folder, cache), seconds_to_list(folder, cache)
    print(f"{NUM_FILES} files: first {first:.3f} s, again {second:.3f} s, {first / second:.1f} times as quick")
    print(json.dumps({"first_seconds": first, "second_seconds": second, "ratio": first / second}))


if __name__ == "__main__":
    main()
