"""Loading takes little more memory than the network that comes of it."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.load_memory import BOUNDS, FILE_KINDS, measure


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("kind", FILE_KINDS)
def test_peak_memory(tmp_path, kind):
    ratio = measure(kind, 128 * 2**20, torch.float16, tmp_path)
    assert 0.9 < ratio <= BOUNDS[kind]
