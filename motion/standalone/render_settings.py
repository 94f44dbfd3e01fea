"""What one call of the pipeline renders: the host's own fields (prompt, sampler, size, …) beside the clip's."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motion.errors import SettingsError
from motion.settings import MotionSettings

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

MAX_SEED = 2**32 - 1
SIZE_STEP = 8
RESIZE_MODES = ("Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)")


def _bounded(default: Any, minimum: float, maximum: float, step: int = 1) -> Any:
    return dataclasses.field(default=default, metadata={"minimum": minimum, "maximum": maximum, "step": step})


@dataclass(frozen=True)
class RenderSettings:
    """Checked settings of one render; the names are those of the command line's flags.

    Attributes:
        prompt: what to show; `<lora:name:weight>` and `(word:1.2)` work as in the web UI.
        negative_prompt: what not to show.
        steps: sampling steps.
        sampler: name of a sampler.
        scheduler: name of a schedule type; "Automatic" is the sampler's own.
        cfg_scale: strength of the prompt.
        width: pixels, a multiple of 8.
        height: pixels, a multiple of 8.
        seed: seed of the initial noise; -1 draws one.
        clip_skip: layers of the text encoder left out, counted from the end, plus one.
        init_image: picture to start from (path, PIL image, or uint8 array h w 3); None for text only.
        denoising_strength: share of the noise added to `init_image`, or to the first pass of a hires pass.
        resize_mode: how `init_image` takes the size, an index of RESIZE_MODES.
        hires_scale: size of the hires pass over that of the first; 1 makes no hires pass.
        hires_steps: steps of the hires pass; 0 takes `steps`.
        hires_upscaler: name of the hires pass's upscaler.
        motion: the clip's own settings, or a mapping of them.

    Raises:
        SettingsError: a value of the wrong type or out of range, or two that don't go together.
    """

    prompt: str = ""
    negative_prompt: str = ""
    steps: int = _bounded(20, 1, 150)
    sampler: str = "Euler a"
    scheduler: str = "Automatic"
    cfg_scale: float = _bounded(7.0, 1.0, 30.0)
    width: int = _bounded(512, 64, 2048, SIZE_STEP)
    height: int = _bounded(512, 64, 2048, SIZE_STEP)
    seed: int = _bounded(-1, -1, MAX_SEED)
    clip_skip: int = _bounded(1, 1, 12)
    init_image: str | Path | Image.Image | np.ndarray[Any, Any] | None = None
    denoising_strength: float = _bounded(0.75, 0.0, 1.0)
    resize_mode: int = _bounded(0, 0, len(RESIZE_MODES) - 1)
    hires_scale: float = _bounded(1.0, 1.0, 4.0)
    hires_steps: int = _bounded(0, 0, 150)
    hires_upscaler: str = "Latent"
    motion: MotionSettings | Mapping[str, Any] = dataclasses.field(default_factory=lambda: MotionSettings(enabled=True))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(field.default, str):
                _check_text(field.name, getattr(self, field.name))
            elif field.metadata:
                _check_number(field, getattr(self, field.name))
        if not isinstance(self.motion, MotionSettings):
            if not isinstance(self.motion, Mapping):
                raise SettingsError(
                    f"`motion` must be MotionSettings or a mapping of its fields, got {type(self.motion).__name__}. "
                    'Pass {"motion_module": …, "num_frames": 16}.'
                )
            # Frozen: the one way to store the checked form of what the caller passed.
            object.__setattr__(self, "motion", MotionSettings.from_mapping({"enabled": True, **self.motion}))
        if self.init_image is not None and self.hires_scale > 1:
            raise SettingsError(
                f"`hires_scale` must be 1 with `init_image`, got {self.hires_scale:g}. A hires pass follows text only; "
                "raise `width` and `height` instead."
            )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> RenderSettings:
        """Settings from values by field name; missing fields take their defaults.

        Raises:
            SettingsError: unknown field, wrong type, or a value out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in mapping:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                hint = f"Did you mean `{near[0]}`?" if near else "Remove it."
                raise SettingsError(f"Unknown field `{name}`; known are {', '.join(names)}. {hint}")
        return cls(**mapping)

    @property
    def clip(self) -> MotionSettings:
        """`motion` in its checked form."""
        assert isinstance(self.motion, MotionSettings)
        return self.motion


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise SettingsError(f"`{name}` must be text, got {value!r:.80}. Pass a string.")


def _check_number(field: dataclasses.Field[Any], value: Any) -> None:
    whole = isinstance(field.default, int)
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value != value:
        raise SettingsError(f"`{field.name}` must be {kind}, got {value!r:.80}. Pass {kind}.")
    minimum, maximum, step = (field.metadata[key] for key in ("minimum", "maximum", "step"))
    if not minimum <= value <= maximum:
        raise SettingsError(
            f"`{field.name}` must be {kind} from {minimum:g} to {maximum:.10g}, got {value!r:.80}. "
            "Choose a value in this range."
        )
    if value % step and whole:
        raise SettingsError(
            f"`{field.name}` must be a multiple of {step}, got {value}. Choose {value - value % step} or "
            f"{value - value % step + step}."
        )
