"""Between a UNet call's rows and clips: which rows are which frames, and the axes that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from motion.errors import InjectionError
from motion.protocols import FrameRows, RowsOfCall


class CallRows:
    """The layout of the UNet call that is running now. One object belongs to one injection.

    Attributes:
        num_frames: frames of the clip, or of its window that the UNet runs now.
        frames: which frames of the clip these are.
        num_calls: finished UNet calls.
    """

    def __init__(self, num_frames: int, rows_of_call: RowsOfCall | None) -> None:
        self.num_frames = num_frames
        self.frames: Sequence[int] = range(num_frames)
        self.num_calls = 0
        self._rows_of_call = rows_of_call
        self._rows: FrameRows | None = None
        self._order: Tensor | None = None
        self._inverse: Tensor | None = None

    def begin_call(self, num_rows: int, device: torch.device) -> None:
        """Take the layout of a call of `num_rows` rows.

        Raises:
            InjectionError: the rows don't add up to whole clips.
        """
        ask = self._rows_of_call
        rows = FrameRows.contiguous(num_rows, self.num_frames) if ask is None else ask(num_rows)
        if rows.num_rows != num_rows or len(rows.rows[0]) != self.num_frames:
            raise InjectionError(
                f"A UNet call of {num_rows} rows was announced as {len(rows.rows)} × {len(rows.rows[0])} frames; "
                f"the clip has {self.num_frames}. Please report this with the sampler and the prompt."
            )
        self._rows = rows
        self._order = self._inverse = None
        if not rows.is_contiguous:
            self._order = torch.tensor(rows.rows, device=device).flatten()
            self._inverse = torch.argsort(self._order)

    def rows_of_frames(self, frames: Sequence[int]) -> tuple[int, ...]:
        """The running call's rows that hold `frames` of the clip, entry after entry."""
        assert self._rows is not None, "a call is running"
        return tuple(entry[frame] for entry in self._rows.rows for frame in frames)

    @contextmanager
    def window(self, frames: Sequence[int], num_rows: int) -> Iterator[None]:
        """Within the context calls hold `frames` only, entry after entry in `num_rows` rows."""
        whole = self._rows, self._order, self._inverse, self.num_frames, self.frames
        self._rows, self._order, self._inverse = FrameRows.contiguous(num_rows, len(frames)), None, None
        self.num_frames, self.frames = len(frames), tuple(frames)
        try:
            yield
        finally:
            self._rows, self._order, self._inverse, self.num_frames, self.frames = whole

    @property
    def num_rows(self) -> int:
        """Rows of the call or window that is running now; 0 before the first one."""
        return 0 if self._rows is None else self._rows.num_rows

    def to_entries(self, x: Tensor) -> Tensor:
        """Rows in the call's order -> `(b f) c h w`, entry after entry."""
        if self._rows is None or x.shape[0] != self._rows.num_rows:
            expected = "none" if self._rows is None else self._rows.num_rows
            raise InjectionError(
                f"A layer of the UNet got {x.shape[0]} rows, the call has {expected}. Another extension changes the "
                "batch inside the UNet; turn it off for this clip."
            )
        return x if self._order is None else x[self._order]

    def to_rows(self, x: Tensor) -> Tensor:
        """`(b f) c h w` -> rows in the call's order."""
        return x if self._inverse is None else x[self._inverse]


class FrameAxisNorm:
    """Two hooks that let a GroupNorm take its statistics over all frames of an entry.

    The input is folded from `(b f) c h w` to `b c (f h) w` before the norm and unfolded after it, so the host's own
    norm does the arithmetic, in its own precision, once. This is what the reference's 5-D input does for v1 modules.

    Args:
        rows: layout of the running call.
        is_on: whether it does so in the running call; in others the norm is the host's own.
    """

    def __init__(self, rows: CallRows, is_on: Callable[[], bool]) -> None:
        self._rows = rows
        self._is_on = is_on

    def fold(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Forward pre-hook."""
        if not self._is_on():
            return args
        x = self._rows.to_entries(args[0])
        return (rearrange(x, "(b f) c h w -> b c (f h) w", f=self._rows.num_frames), *args[1:])

    def unfold(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook."""
        if not self._is_on():
            return output
        x = rearrange(output, "b c (f h) w -> (b f) c h w", f=self._rows.num_frames)
        return self._rows.to_rows(x)
