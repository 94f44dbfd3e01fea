"""How strong the motion is: in each frame, by a text of values or keyframes, and in which steps of a pass.

```
1.2                            every frame
1, 0.8, 0.6                    one for each frame
0: 1, 0.5 ease-in: 0.3, -1: 1  keyframes, between which it runs from one value to the next
```

What stands before a keyframe's colon is what stands there in a prompt (`motion.conditioning.keyframes`), easing, `hold`
and ranges included. Nothing here knows torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from motion.conditioning.keyframes import Key, parse_key, read_value
from motion.conditioning.prompt_schedule import resolve_values
from motion.errors import SettingsError
from motion.settings import MotionSettings

_FORM = "Write 1.2 for all frames, 1, 0.8, 0.6 with a value for each, or keyframes such as 0: 1, 0.5 ease-in: 0.3."
_ENTRIES = re.compile(r"[,;\n]")
_VALUES = re.compile(r"\s*[,;]\s*|\s+")
_ROUNDING = 1e-6
"""A share of the steps comes from a slider, whose 0.6 may be 0.6000000000000001."""


@dataclass(frozen=True)
class MotionStrength:
    """Strength of the motion of one clip.

    Attributes:
        scales: factor on the temporal branch, one for each frame.
        start: share of a pass's steps before the first one with motion.
        end: share of them before the first one without it again; 1 is to the end.
    """

    scales: tuple[float, ...]
    start: float = 0.0
    end: float = 1.0

    @classmethod
    def resolve(cls, settings: MotionSettings, prompt_values: Sequence[float] | None = None) -> MotionStrength:
        """What a request asks for: motion scale × the frame's own × what the prompt's keyframes say of it.

        Args:
            settings: the request.
            prompt_values: `motion` of each frame in the prompt; None where it says nothing.

        Raises:
            SettingsError: a malformed entry, which is quoted, values that don't fit the clip, or no steps.
        """
        if settings.motion_start >= settings.motion_end:
            raise SettingsError(
                f"`motion_start` must be less than `motion_end` ({settings.motion_end:g}), got "
                f"{settings.motion_start:g}. Lower it; for a clip without motion set `motion_scale` to 0."
            )
        own = frame_values(settings.motion_scale_frames, settings.num_frames, closed_loop=settings.closed_loop)
        values = prompt_values or (1.0,) * settings.num_frames
        scales = tuple(settings.motion_scale * frame * value for frame, value in zip(own, values, strict=True))
        return cls(scales, settings.motion_start, settings.motion_end)

    @property
    def is_zero(self) -> bool:
        """True where no frame moves."""
        return not any(self.scales)

    @property
    def is_in_every_step(self) -> bool:
        """True where which step runs doesn't matter."""
        return self.start == 0 and self.end == 1

    def is_in_step(self, step: int, num_steps: int) -> bool:
        """True where motion runs in step `step`, from 0, of so many; ranges that meet share no step."""
        share = step / num_steps + _ROUNDING
        return self.start <= share and (self.end == 1 or share < self.end)

    def check_steps(self, num_steps: int) -> None:
        """Refuse a clip whose frames would never see each other.

        Raises:
            SettingsError: none of a pass's `num_steps` steps is in the range.
        """
        if not any(self.is_in_step(step, num_steps) for step in range(num_steps)):
            raise SettingsError(
                f"`motion_start` and `motion_end` must leave a step with motion, got {self.start:g} to {self.end:g}, "
                f"which is none of {num_steps} steps. Move them apart, or raise the steps."
            )

    def __str__(self) -> str:
        low, high = min(self.scales), max(self.scales)
        scale = f"scale {low:g}" if low == high else f"scale {low:g} to {high:g}"
        return scale if self.is_in_every_step else f"{scale}, from {self.start:.0%} to {self.end:.0%} of the steps"


def frame_values(text: str, num_frames: int, *, closed_loop: bool = False) -> tuple[float, ...]:
    """Value of each frame that `text` says; all 1 where it is empty.

    Args:
        text: as the module's docstring shows.
        num_frames: frames of the clip.
        closed_loop: after the last keyframe run towards the first one.

    Raises:
        SettingsError: a malformed entry, which is quoted; another number of values than frames; a keyframe outside the
            clip, or two for one frame.
    """
    if not text.strip():
        return (1.0,) * num_frames
    if ":" in text:
        keys = [_keyframe(entry.strip()) for entry in _ENTRIES.split(text.strip().strip(",;"))]
        try:
            return resolve_values(keys, num_frames, closed_loop=closed_loop)
        except SettingsError as error:
            raise SettingsError(f"`motion_scale_frames`: {error}") from error
    entries = _VALUES.split(text.strip().strip(",;").strip())
    values = tuple(_value(entry, entry) for entry in entries)
    if len(values) not in (1, num_frames):
        raise SettingsError(
            f"`motion_scale_frames` must hold one value for all frames, one for each ({num_frames}), or keyframes, got "
            f"{len(values)} values. {_FORM}"
        )
    return values if len(values) == num_frames else values * num_frames


def _keyframe(entry: str) -> tuple[Key, str, float]:
    """Key, entry and value."""
    left, colon, right = entry.partition(":")
    try:
        key = parse_key(left)
    except SettingsError as error:
        raise _malformed(entry, str(error)) from error
    if not colon or key is None:
        raise _malformed(entry, "a keyframe begins with a frame, a fraction or a range, and a colon")
    if key.values:
        raise _malformed(entry, "cfg and motion belong into the prompt's keyframes")
    return key, entry, _value(entry, right.strip())


def _value(entry: str, text: str) -> float:
    try:
        return read_value("motion", text)
    except SettingsError as error:
        raise _malformed(entry, str(error)) from error


def _malformed(entry: str, reason: str) -> SettingsError:
    return SettingsError(f"`motion_scale_frames`, entry '{entry[:80]}': {reason.rstrip('.')}. {_FORM}")
