"""What a web UI sees of a UNet that runs window by window: progress, Interrupt, and ControlNet's pictures per frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from modules import sd_samplers_common, shared

from motion.injection.unet_windows import take_rows
from motion.protocols import UNetWindow

_HINTS = ("hint_cond", "hr_hint_cond")
_PARTLY_FREE = 0.9
"""Of the memory that is free, what a single computation can count on: it is in pieces."""


class WindowProgress:
    """Moves the progress bar window by window; the host itself moves it once a step.

    `shared.state.sampling_step` is a whole number that lags by one from the second step on. While a window runs it is
    the steps done and the part of this step.
    """

    def __init__(self) -> None:
        self._num_begun = 0
        self._step_rows = 0
        self._rows_done = 0

    def begin_pass(self) -> None:
        """A sampling pass begins."""
        self._num_begun = 0

    def begin_step(self, num_rows: int) -> None:
        """A step of so many rows begins."""
        self._num_begun += 1
        self._step_rows, self._rows_done = num_rows, 0

    @contextmanager
    def shown(self, window: UNetWindow) -> Iterator[None]:
        """While in the context, show this window.

        Raises:
            InterruptedException: Interrupt or Skip; the sampler then returns what it has.
        """
        state = shared.state
        if state.interrupted or state.skipped:
            raise sd_samplers_common.InterruptedException
        before = state.sampling_step, state.textinfo
        done = self._rows_done + window.num_rows * window.index / window.count
        part = min(1.0, done / max(1, self._step_rows))
        state.sampling_step = min(before[0] + (self._num_begun > 1) + part, max(state.sampling_steps, before[0]))
        state.textinfo = f"Motion: window {window.index + 1} of {window.count} (scope unet)"
        try:
            yield
        finally:
            state.sampling_step, state.textinfo = before
            if window.index == window.count - 1:
                self._rows_done += window.num_rows


@contextmanager
def control_hints_cut(p: Any, window: UNetWindow) -> Iterator[None]:
    """While in the context, units of the ControlNet extension have this window's part of their pictures.

    A unit with one picture for each frame, or for each row of the call, gets a copy of the window's; one with a single
    picture for all frames keeps it. Setting `hint_cond` makes the extension forget what it has made of the old one.
    """
    changed: list[tuple[Any, str, Any]] = []
    try:
        for unit in _control_units(p):
            for name in _HINTS:
                hint = getattr(unit, name, None)
                cut = _cut(hint, window)
                if cut is not hint:
                    changed.append((unit, name, hint))
                    setattr(unit, name, cut)
        yield
    finally:
        for unit, name, hint in reversed(changed):
            setattr(unit, name, hint)


def _control_units(p: Any) -> list[Any]:
    scripts = getattr(getattr(p, "scripts", None), "alwayson_scripts", None) or []
    networks = (getattr(script, "latest_network", None) for script in scripts)
    return [unit for network in networks for unit in getattr(network, "control_params", None) or []]


def _cut(hint: Any, window: UNetWindow) -> Any:
    if not isinstance(hint, torch.Tensor) or hint.dim() == 0:
        return hint
    places = {window.num_rows: window.rows, window.num_frames: window.frames}.get(hint.shape[0])
    if places is None:
        return hint
    return take_rows(hint, hint.shape[0], torch.tensor(places, device=hint.device))


def latent_pixels(p: Any) -> int:
    """Height × width of the request's latents, in the hires pass where there is one."""
    factor = 1.0
    if getattr(p, "enable_hr", False):
        asked = max((p.hr_resize_x or 0) / p.width, (p.hr_resize_y or 0) / p.height)
        factor = max(1.0, asked or p.hr_scale)
    return int(round(p.height / 8 * factor) * round(p.width / 8 * factor))


def free_bytes(device: torch.device, unet: torch.nn.Module, *, unet_comes: bool) -> int | None:
    """Memory of `device` that one computation can count on; None where it can't be told.

    Args:
        device: where the UNet computes.
        unet: the UNet.
        unet_comes: what of the UNet isn't on the device yet will come there as a whole.
    """
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if unet_comes:
            free -= int(sum(weight.nbytes for weight in unet.parameters() if weight.device.type != "cuda"))
    elif device.type == "cpu" and (found := _available_bytes()) is not None:
        free = found
    else:
        return None
    return int(_PARTLY_FREE * free)


def _available_bytes() -> int | None:
    """What Linux can give to a program without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
