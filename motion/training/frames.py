"""Between frames as people see them and tensors as networks do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def to_pictures(frames: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 frames `f h w 3` to float32 pictures `f 3 h w` in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_frames(pictures: Tensor) -> npt.NDArray[np.uint8]:
    """Pictures `f 3 h w` in [-1, 1] to uint8 frames `f h w 3`."""
    scaled = pictures.detach().float().add(1.0).mul(127.5).round().clamp(0, 255)
    frames: npt.NDArray[np.uint8] = scaled.to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return frames
