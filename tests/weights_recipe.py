"""Weights that the goldens were computed with: a function of a tensor's name and shape, nothing stored."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn


def fill(key: str, shape: tuple[int, ...]) -> Tensor:
    """Float32 weights for the tensor that a public file calls `key`, scaled so that a deep network stays tame.

    The stream is numpy's frozen legacy generator, seeded with the CRC-32 of the key.
    """
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("mix_factor"):
        values = 0.8 * normal
    elif len(shape) >= 2:
        values = normal / math.sqrt(float(np.prod(shape[1:])))
    elif key.endswith(".weight"):
        values = 1.0 + 0.1 * normal
    else:
        values = 0.1 * normal
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(shape))


def fill_module(module: nn.Module, prefix: str = "") -> None:
    """Give `module` the weights of the keys `prefix` + its own; position tables stay as they are."""
    weights = {key: fill(prefix + key, tuple(t.shape)) for key, t in module.state_dict().items()}
    module.load_state_dict({key: t for key, t in weights.items() if not key.endswith(".pe")}, strict=False)
