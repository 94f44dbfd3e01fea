"""How much each window counts for each of its frames; over all windows a frame's weights sum to one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from motion.context.schedules import Window
from motion.settings import FUSE_METHODS

_ALMOST_NONE = 1e-37
"""Weight that loses against any other and still counts where there is none."""


def fuse_weights(
    method: str, windows: Sequence[Window], num_frames: int, overlap: int, *, closed_loop: bool = False
) -> tuple[tuple[float, ...], ...]:
    """Weights of the frames of each window.

    The shapes are those of AnimateDiff-Evolved; "gaussian" is ours, a bell of a quarter window's deviation.

    Args:
        method: one of FUSE_METHODS.
        windows: the windows of a step, which cover every frame.
        num_frames: frames of the clip.
        overlap: frames that neighbouring windows share.
        closed_loop: the clip's ends are borders between windows as all others are.

    Raises:
        ValueError: an unknown method.
    """
    shapes = [window_shape(method, window, num_frames, overlap, closed_loop=closed_loop) for window in windows]
    totals = [0.0] * num_frames
    for window, shape in zip(windows, shapes, strict=True):
        for frame, weight in zip(window, shape, strict=True):
            totals[frame] += weight
    return tuple(
        tuple(weight / totals[frame] for frame, weight in zip(window, shape, strict=True))
        for window, shape in zip(windows, shapes, strict=True)
    )


def window_shape(
    method: str, window: Window, num_frames: int, overlap: int, *, closed_loop: bool = False
) -> tuple[float, ...]:
    """Weights of one window before windows are set off against each other, above zero.

    Args:
        method: as in `fuse_weights`.
        window: the window.
        num_frames: frames of the clip.
        overlap: frames that neighbouring windows share.
        closed_loop: as in `fuse_weights`.

    Raises:
        ValueError: an unknown method.
    """
    length = len(window)
    middle = (length - 1) / 2
    if method == "flat":
        return (1.0,) * length
    if method == "pyramid":
        return tuple(float(min(place + 1, length - place)) for place in range(length))
    if method == "relative":
        half = (length - 1 + 0.01) / 2
        return tuple(max(0.01, 1 - abs(place - middle) / half) for place in range(length))
    if method == "gaussian":
        return tuple(math.exp(-(((place - middle) / (length / 4)) ** 2) / 2) for place in range(length))
    if method == "overlap-linear":
        is_first = not closed_loop and window[0] == 0
        is_last = not closed_loop and window[-1] == num_frames - 1
        return _ramps(length, min(overlap, length), rises=not is_first, falls=not is_last)
    raise ValueError(f"The fuse method must be one of {', '.join(FUSE_METHODS)}, got {method!r}.")


def _ramps(length: int, overlap: int, *, rises: bool, falls: bool) -> tuple[float, ...]:
    """1 in the middle, a straight line between almost 0 and 1 over the `overlap` frames at each inner border."""
    ramp = [max(place / max(1, overlap - 1), _ALMOST_NONE) for place in range(overlap)]
    weights = [1.0] * length
    if rises:
        weights[:overlap] = ramp
    if falls:
        weights[length - overlap :] = [
            min(before, after) for before, after in zip(weights[length - overlap :], reversed(ramp), strict=True)
        ]
    return tuple(weights)
