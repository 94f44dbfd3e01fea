"""How the camera moves: registration of the background from frame to frame, shapes masked out.

Gauss-Newton on the brightness of two frames (Lucas and Kanade, 1981) with gradients averaged over both, for a shift, a
zoom about the middle and a change of brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from motion.training.shapes_drawing import CENTRE, SIZE, Floats
from motion.training.shapes_segmentation import smoothed

_BLUR = 2.0  # sigma in pixels; the pattern's period is 32
_BORDER = 4  # pixels at the frame's edge where blur and gradients are not true
_STIFFNESS = 1e-5  # of the gradient's square per pixel, so that a plain background gives no motion


@dataclass(frozen=True)
class CameraPath:
    """What the picture's content does from each frame to the next, float64.

    Attributes:
        shift: f-1 2, pixels right and down at the middle of the frame; the camera goes the other way.
        zoom: f-1, logarithm of the factor; positive when the camera zooms in.
    """

    shift: npt.NDArray[np.float64]
    zoom: npt.NDArray[np.float64]

    def carried(self, place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How far a thing at rest in the world at `place`, f-1 2 in pixels, goes over the screen to the next frame."""
        return self.shift + self.zoom[:, None] * (place - CENTRE)


def find_camera(shade: Floats, shape: Floats) -> CameraPath:
    """The camera's path over a clip.

    Args:
        shade: f h w, brightness of the background.
        shape: f h w, more than 0 where it is hidden by something.
    """
    seen = (smoothed((shape > 0).astype(np.float32), 1.0) < 0.02).astype(np.float32)
    weight = smoothed(seen, _BLUR)
    smooth = smoothed(np.clip(shade, -1, 2) * seen, _BLUR) / np.maximum(weight, np.float32(1e-3))
    trust = weight * seen
    trust[:, :_BORDER] = trust[:, -_BORDER:] = 0
    trust[:, :, :_BORDER] = trust[:, :, -_BORDER:] = 0
    both = (trust[:-1] * trust[1:]).reshape(len(shade) - 1, -1)
    slope_y, slope_x = (
        (0.5 * (slope[:-1] + slope[1:])).reshape(len(both), -1) for slope in np.gradient(smooth, axis=(1, 2))
    )
    change = (smooth[1:] - smooth[:-1]).reshape(len(both), -1)
    place = np.arange(SIZE, dtype=np.float32) + np.float32(0.5 - CENTRE)
    outward = slope_x * np.tile(place, SIZE) + slope_y * np.repeat(place, SIZE)
    columns = np.stack([slope_x, slope_y, outward / CENTRE, np.full_like(slope_x, 0.1)], axis=1)
    weighted = columns * both[:, None]
    normal = (weighted @ columns.transpose(0, 2, 1)).astype(np.float64) + np.eye(4) * _STIFFNESS * SIZE * SIZE
    right = -(weighted @ change[..., None]).astype(np.float64)
    found = np.linalg.solve(normal, right)[..., 0]
    return CameraPath(found[:, :2], found[:, 2] / CENTRE)
