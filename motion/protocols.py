"""What the core needs of a host, and the small values that cross that border."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from motion.errors import InjectionError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FrameRows:
    """Says which rows of a UNet call are which frames.

    Attributes:
        rows: `rows[e][f]` is the row that holds frame f of entry e (an entry is one cond or uncond of the clip).
            Every row of the call stands in it exactly once, and every entry has the same number of frames.
    """

    rows: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        flat = [row for entry in self.rows for row in entry]
        if sorted(flat) != list(range(len(flat))) or len({len(entry) for entry in self.rows}) > 1:
            raise InjectionError(
                f"The rows of a UNet call must hold each frame of each entry once, got {self.rows}. "
                "Please report this with the sampler and the prompt."
            )

    @property
    def num_rows(self) -> int:
        """Rows of the call."""
        return sum(len(entry) for entry in self.rows)

    @property
    def is_contiguous(self) -> bool:
        """True when the call is entry after entry with the frames in order: `(b f) c h w`."""
        return [row for entry in self.rows for row in entry] == list(range(self.num_rows))

    @classmethod
    def contiguous(cls, num_rows: int, num_frames: int) -> FrameRows:
        """Layout of `num_rows` rows that hold one entry's frames after another's.

        Raises:
            InjectionError: `num_rows` is not a multiple of `num_frames`.
        """
        if num_rows == 0 or num_rows % num_frames:
            raise InjectionError(
                f"A UNet call must hold a whole number of clips of {num_frames} frames, got {num_rows} rows. "
                "Another extension or a prompt with AND splits the batch; turn it off for this clip."
            )
        return cls(tuple(tuple(range(row, row + num_frames)) for row in range(0, num_rows, num_frames)))


RowsOfCall = Callable[[int], FrameRows]
"""Number of rows of the UNet call that begins now -> its layout."""


@dataclass(frozen=True)
class FrameWindows:
    """Overlapping windows of a clip's frames, in which temporal attention runs, and how they are blended.

    Attributes:
        windows: frames of each window, in the order in which the motion module sees them; every frame of the clip is
            in one window at least, and in none twice.
        weights: what a window's result counts for each of its frames; a frame's weights sum to one.
    """

    windows: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return 1 + max(frame for window in self.windows for frame in window)


WindowsOfCall = Callable[[], FrameWindows | None]
"""The windows of the UNet call that begins now; None where the clip is one window, its frames in order."""


@dataclass(frozen=True)
class UNetWindow:
    """The part of a UNet call that runs now, where the whole UNet runs once per window.

    Attributes:
        index: of this window in the call, from 0.
        count: windows of the call.
        frames: the clip's frames that it holds, in the order in which the motion modules see them.
        rows: the call's rows that it holds, entry after entry.
        num_frames: frames of the clip.
        num_rows: rows of the call.
    """

    index: int
    count: int
    frames: tuple[int, ...]
    rows: tuple[int, ...]
    num_frames: int
    num_rows: int


AroundWindow = Callable[[UNetWindow], AbstractContextManager[None]]
"""Entered around each window that the UNet runs; what it raises ends the call."""


@dataclass(frozen=True)
class WindowRun:
    """How a clip that is longer than the motion modules' window runs.

    Attributes:
        of_call: the windows of a UNet call.
        scope: "attention" runs the UNet once on all frames and windows the temporal attention, "unet" runs the UNet
            once per window, in the memory of one.
        around_window: entered around each window in scope "unet".
    """

    of_call: WindowsOfCall
    scope: str = "attention"
    around_window: AroundWindow | None = None


@dataclass(frozen=True)
class BetaSchedule:
    """Noise schedule that a motion module was trained with.

    Attributes:
        kind: "linear" is linspace(start, end); "scaled_linear" is linspace(√start, √end)². These are diffusers' names;
            ldm calls the second one "linear" and k-diffusion calls the first one "sqrt_linear".
        start: β of the first timestep.
        end: β of the last timestep.
    """

    kind: str
    start: float = 0.00085
    end: float = 0.012
    num_timesteps: int = 1000


@dataclass(frozen=True)
class Placement:
    """Where and in which number formats a host runs its UNet; motion modules follow it.

    Attributes:
        device: where the UNet computes.
        dtype: in which it computes.
        storage_dtype: in which the host stores large weights, such as `torch.float8_e4m3fn`; equal to `dtype` where it
            stores what it computes in.
        streamed: the host keeps weights off the device and moves each part in when it runs (A1111's --lowvram, Forge
            when the UNet does not fit).
    """

    device: torch.device
    dtype: torch.dtype
    storage_dtype: torch.dtype
    streamed: bool = False


@dataclass(frozen=True)
class UNetRoom:
    """What a request's largest UNet call is made of, and the memory that there is for it.

    Attributes:
        rows_per_frame: rows of the call for each frame of the clip: 2 where cond and uncond run together.
        latent_pixels: height × width of the latents.
        free_bytes: memory of the device that the call may take; None where the web UI can't tell.
    """

    rows_per_frame: int
    latent_pixels: int
    free_bytes: int | None


class ModelHost(Protocol):
    """The loaded model of a web UI, as a session sees it while one request is sampled."""

    name: str

    def unet(self) -> torch.nn.Module:
        """The LDM-layout UNet that is sampled now."""
        ...

    def placement(self) -> Placement:
        """Where and in which number formats the UNet that is sampled now runs."""
        ...

    def reserved_memory(self, num_bytes: int) -> AbstractContextManager[None]:
        """Ask the host to keep `num_bytes` of the device's memory free while sampling, for what it doesn't know of.

        A null context where the host has no such thing.
        """
        ...

    def beta_schedule(self, schedule: BetaSchedule) -> AbstractContextManager[None]:
        """Make the sampler of this request read `schedule`; the old one is back when the context ends."""
        ...

    def rows_of_call(self, num_rows: int) -> FrameRows:
        """Layout of the UNet call that begins now (a `RowsOfCall`)."""
        ...

    def interrupted(self) -> bool:
        """True when the user has stopped this request."""
        ...

    def unet_room(self) -> UNetRoom:
        """What the UNet calls of this request take, and what there is for them."""
        ...

    def unet_window(self, window: UNetWindow) -> AbstractContextManager[None]:
        """While in the context the UNet runs one window: show it, and cut what other extensions have for each frame.

        Raises:
            BaseException: what this web UI's sampler takes for a stop, where the user has stopped this request.
        """
        ...
