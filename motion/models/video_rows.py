"""Which rows of a video network's call are frames of which clip."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class VideoRows:
    """Rows `(b f)` of a call: the frames of each of b clips in order.

    Attributes:
        num_frames: f.
        stills: bool `(b f)`, true for rows that are pictures of their own: what temporal layers make of these is left
            out. None where there are none.
    """

    num_frames: int
    stills: Tensor | None = None
