"""From what a request says of windows, and what the module was trained on, to the windows of each step."""

from __future__ import annotations

from dataclasses import dataclass

from motion.context.fusion import fuse_weights
from motion.context.schedules import Context, windows_of_step
from motion.errors import SettingsError
from motion.protocols import FrameWindows
from motion.settings import MotionSettings

AUTO_LENGTH = 0
AUTO_OVERLAP = -1


@dataclass(frozen=True)
class WindowPlan:
    """The windows of a clip.

    Attributes:
        num_frames: frames of the clip.
        schedule: one of CONTEXT_SCHEDULES.
        fuse_method: one of FUSE_METHODS.
        context: shape of the windows.
    """

    num_frames: int
    schedule: str
    fuse_method: str
    context: Context

    @classmethod
    def resolve(cls, settings: MotionSettings, trained_frames: int, max_length: int) -> WindowPlan:
        """The windows that `settings` ask for.

        Length 0 means `trained_frames`; overlap -1 a quarter of the length, and with "views" three quarters, as
        FreeNoise slides them.

        Args:
            settings: the request.
            trained_frames: frames of a clip in the module's training, at most `max_length`.
            max_length: most frames that the module can take at once.

        Raises:
            SettingsError: fields that don't go together, or windows longer than the module can take.
        """
        given = settings.context_length
        length = trained_frames if given == AUTO_LENGTH else given
        if length > max_length:
            raise SettingsError(
                f"`context_length` must be at most {max_length} with this motion module, got {length}. "
                f"Lower it, or set {AUTO_LENGTH} for the {trained_frames} frames of its training."
            )
        overlap = settings.context_overlap
        if overlap == AUTO_OVERLAP:
            quarter = max(1, length // 4)
            overlap = min(length - quarter if settings.context_schedule == "views" else quarter, length - 1)
        if overlap >= length:
            raise SettingsError(
                f"`context_overlap` must be smaller than `context_length` ({length}), got {overlap}. "
                "Lower the overlap or lengthen the context."
            )
        _check_schedule(settings)
        context = Context(length, overlap, settings.context_stride, settings.closed_loop)
        return cls(settings.num_frames, settings.context_schedule, settings.fuse_method, context)

    def windows(self, step: int) -> FrameWindows | None:
        """The windows of the sampler's step `step`, counted from 0; None where the clip is one plain window."""
        windows = windows_of_step(self.schedule, self.num_frames, self.context, step)
        if windows == (tuple(range(self.num_frames)),):
            return None
        weights = fuse_weights(
            self.fuse_method,
            windows,
            self.num_frames,
            self.context.overlap,
            closed_loop=self.context.closed_loop or self.schedule == "looped",
        )
        return FrameWindows(windows, weights)

    def __str__(self) -> str:
        first = windows_of_step(self.schedule, self.num_frames, self.context, 0)
        if len(first) == 1:
            return "one window"
        loop = ", a closed loop" if self.context.closed_loop else ""
        return f"{len(first)} windows of {len(first[0])} frames, overlap {self.context.overlap}{loop}"


def _check_schedule(settings: MotionSettings) -> None:
    schedule = settings.context_schedule
    if settings.context_stride > 1 and schedule not in ("uniform", "looped"):
        raise SettingsError(
            f"`context_stride` must be 1 with the schedule '{schedule}', got {settings.context_stride}. "
            "Choose 'uniform' or 'looped', or set it to 1."
        )
    if settings.closed_loop and schedule == "batched":
        raise SettingsError(
            "`closed_loop` must be off with the schedule 'batched', whose windows don't overlap and so can't join the "
            "clip's ends. Choose another schedule."
        )
    if settings.closed_loop and settings.context_overlap == 0:
        raise SettingsError(
            "`context_overlap` must be at least 1 in a closed loop, got 0: only windows that overlap join the clip's "
            "ends. Raise it."
        )
