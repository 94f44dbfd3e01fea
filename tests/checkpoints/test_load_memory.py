"""Loading takes little more memory than the network that comes of it."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import module_memory
from benchmarks.load_memory import BOUNDS, FILE_KINDS, measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_peak_memory(tmp_path, kind):
    ratio = measure(kind, 128 * 2**20, torch.float16, tmp_path)
    assert 0.9 < ratio <= BOUNDS[kind]


@pytest.mark.parametrize("storage", ["bf16", "fp8"])
def test_peak_memory_of_a_module_in_another_format(tmp_path, storage):
    """At v3's width `python -m benchmarks.module_memory` does the same with all formats."""
    path = module_memory.write_v3(tmp_path / "v3.safetensors", width=128)
    found = module_memory.measure(path, storage)
    assert found.loaded_bytes == pytest.approx(path.stat().st_size / (2 if storage == "fp8" else 1), rel=0.02)
    assert 0.8 < found.ratio <= module_memory.BOUND  # some of it fits into what the first file left
