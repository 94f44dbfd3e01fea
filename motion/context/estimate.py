"""What sampling a clip will take, told before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from motion.context.plan import WindowPlan
from motion.context.window_scope import UNET, WindowScope, choose_window_scope, peak_bytes
from motion.protocols import UNetRoom

_GIB = 2**30


@dataclass(frozen=True)
class UNetNeeds:
    """What a UNet with motion modules takes of the device.

    Attributes:
        room: what a call is made of, and the memory for its feature maps and the motion modules.
        model_channels: channels of the UNet's first level.
        num_bytes: size of a number in the UNet's computations.
        unet_bytes: weights of the UNet.
        module_bytes: weights of the motion modules.
    """

    room: UNetRoom
    model_channels: int
    num_bytes: int
    unet_bytes: int
    module_bytes: int

    def peak_bytes(self, num_frames: int) -> int:
        """Weights and feature maps of a call on so many frames."""
        rows = self.room.rows_per_frame * num_frames
        maps = peak_bytes(rows, self.room.latent_pixels, self.model_channels, self.num_bytes)
        return self.unet_bytes + self.module_bytes + maps

    def scope(self, num_frames: int) -> WindowScope:
        """What the scope "auto" will come to, where the motion modules can run in windows."""
        free = self.room.free_bytes
        room = UNetRoom(
            self.room.rows_per_frame, self.room.latent_pixels, None if free is None else free - self.module_bytes
        )
        return choose_window_scope(room, num_frames, self.model_channels, self.num_bytes, attention_can=True)


@dataclass(frozen=True)
class RunEstimate:
    """What one clip takes.

    Attributes:
        num_frames: frames of the clip.
        num_windows: windows of a step.
        num_steps: steps of a pass; None where they are not known.
        scope: what runs in windows; empty where there is one window, or where that is not known.
        num_rows: rows that the UNet runs in a step; None where no model is loaded.
        peak_bytes: memory of the device at its peak, autoencoder and text encoder apart; None likewise.
    """

    num_frames: int
    num_windows: int
    num_steps: int | None
    scope: str = ""
    num_rows: int | None = None
    peak_bytes: int | None = None

    @classmethod
    def of(cls, plan: WindowPlan, scope: str, num_steps: int | None, needs: UNetNeeds | None) -> RunEstimate:
        """The estimate for a clip that runs as `plan` says.

        Args:
            plan: windows of the clip.
            scope: of WINDOW_SCOPES, as it was asked for.
            num_steps: steps of a pass.
            needs: of the UNet that is loaded; None where none is.
        """
        windows = plan.windows(0)
        lengths = [plan.num_frames] if windows is None else [len(window) for window in windows.windows]
        if windows is None:
            scope = ""
        elif scope == "auto":
            scope = "" if needs is None else needs.scope(plan.num_frames).name
        if needs is None:
            return cls(plan.num_frames, len(lengths), num_steps, scope)
        at_once, in_step = (max(lengths), sum(lengths)) if scope == UNET else (plan.num_frames,) * 2
        rows = needs.room.rows_per_frame * in_step
        return cls(plan.num_frames, len(lengths), num_steps, scope, rows, needs.peak_bytes(at_once))

    def __str__(self) -> str:
        frames, windows = _counted(self.num_frames, "frame"), _counted(self.num_windows, "window")
        work = f"{windows} a step" if self.num_steps is None else f"{windows} × {_counted(self.num_steps, 'step')}"
        if self.num_rows is not None:
            work += f", {self.num_rows} UNet rows in each"
        if self.scope:
            work += f" (scope {self.scope})"
        memory = "" if self.peak_bytes is None else f" · about {self.peak_bytes / _GIB:.1f} GiB"
        return f"{frames} · {work}{memory}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" + "s" * (number != 1)
