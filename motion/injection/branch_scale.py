"""How strong the temporal branch is in the UNet call, or the window of one, that runs now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from motion.errors import InjectionError
from motion.injection.frame_axis import CallRows


class BranchScale:
    """A clip's scale, cut to the frames of each call, or 0 for a call without motion.

    Args:
        scale: one number, or one for each frame of the clip.
        rows: layout of the running call.
        moves_in_call: whether there is motion in the call that begins now; None is always.

    Raises:
        InjectionError: more or fewer numbers than frames.
    """

    def __init__(
        self, scale: float | Sequence[float], rows: CallRows, moves_in_call: Callable[[], bool] | None = None
    ) -> None:
        self._scales = (float(scale),) * rows.num_frames if isinstance(scale, int | float) else tuple(scale)
        if len(self._scales) != rows.num_frames:
            raise InjectionError(
                f"`scale` must be one number, or one for each of the clip's {rows.num_frames} frames, got "
                f"{len(self._scales)} numbers. Pass as many as frames."
            )
        self._rows = rows
        self._moves_in_call = moves_in_call
        self._of: tuple[object, ...] = ()
        self._now: float | Tensor = 0.0
        self.moves = True
        """True where the running call has motion."""

    @property
    def is_zero(self) -> bool:
        """True where no frame moves in any call."""
        return not any(self._scales)

    def begin_call(self) -> None:
        """A UNet call begins."""
        self.moves = self._moves_in_call is None or self._moves_in_call()

    def now(self, device: torch.device) -> float | Tensor:
        """Scale of the running call's rows, entry after entry: a number where it is one, else float32 `(b f) 1 1 1`."""
        if not self.moves:
            return 0.0
        frames, num_rows = self._rows.frames, self._rows.num_rows
        if self._of != (frames, num_rows, device):
            self._of, self._now = (frames, num_rows, device), self._cut(frames, num_rows, device)
        return self._now

    def _cut(self, frames: Sequence[int], num_rows: int, device: torch.device) -> float | Tensor:
        scales = [self._scales[frame] for frame in frames]
        if len(set(scales)) == 1:
            return scales[0]
        # In float32 whatever the features are in, so that each frame is what one number, its own, would make of it.
        each = torch.tensor(scales, dtype=torch.float32, device=device)
        return each.repeat(num_rows // len(frames))[:, None, None, None]  # f -> (b f) 1 1 1
