"""What is asked of an image-to-video run, checked before anything is computed."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from motion.errors import SettingsError
from motion.svd.choices import FITS, GUIDANCE_SHAPES, MIN_SIDE, SAMPLER_NAMES

MAX_BUCKET = 255
"""The highest motion_bucket_id that the public weights know."""
NUMBER_BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "width": (MIN_SIDE, 4096),
        "height": (MIN_SIDE, 4096),
        "num_frames": (1, 1024),
        "num_inference_steps": (1, 1000),
        "min_guidance_scale": (0, 30),
        "max_guidance_scale": (0, 30),
        "fps": (1, 120),
        "motion_bucket_id": (0, MAX_BUCKET),
        "noise_aug_strength": (0, 10),
        "decode_chunk_size": (1, 1024),
        "decode_overlap": (0, 64),
        "num_videos_per_picture": (1, 64),
        "seed": (0, 2**63 - 1),
    }
)
"""Field -> least and greatest value."""
CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sampler": SAMPLER_NAMES,
        "guidance": GUIDANCE_SHAPES,
        "fit": FITS,
    }
)
"""Field -> what it may be."""
_FRACTIONS = ("min_guidance_scale", "max_guidance_scale", "noise_aug_strength")


@dataclass(frozen=True)
class SvdSettings:
    """One run of image to video. The names, where diffusers has the same, are diffusers'.

    Attributes:
        width: of the clip, pixels. The public weights were trained at 1024 × 576 and do worse far from it.
        height: of the clip, pixels.
        num_frames: frames of the clip; None takes as many as the weights were trained with (14 or 25).
        num_inference_steps: steps of the sampler.
        sampler: one of `SAMPLER_NAMES`.
        guidance: how guidance differs from frame to frame, one of `GUIDANCE_SHAPES`.
        min_guidance_scale: scale of the first frame.
        max_guidance_scale: scale of the last frame, or of the middle one in a triangle.
        fps: frames a second that the clip is made for. The weights know 5 to 30.
        motion_bucket_id: how much moves, 0 to 255.
        noise_aug_strength: deviation of the noise on the picture, which is in [-1, 1]: more moves more freely.
        fit: what becomes of a picture of other proportions, one of `FITS`.
        seed: of all noise; None draws one.
        num_videos_per_picture: clips of each picture.
        decode_chunk_size: frames that are decoded at once; None decodes all.
        decode_overlap: frames on either side of a chunk that the temporal decoder sees beside it.

    Raises:
        SettingsError: a value is of the wrong type or out of range.
    """

    width: int = 1024
    height: int = 576
    num_frames: int | None = None
    num_inference_steps: int = 25
    sampler: str = "euler"
    guidance: str = "linear"
    min_guidance_scale: float = 1.0
    max_guidance_scale: float = 3.0
    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02
    fit: str = "crop"
    seed: int | None = None
    num_videos_per_picture: int = 1
    decode_chunk_size: int | None = None
    decode_overlap: int = 2

    def __post_init__(self) -> None:
        for name, (low, high) in NUMBER_BOUNDS.items():
            value = getattr(self, name)
            if value is not None or name not in _optional():
                _check_number(name, value, low, high)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingsError(
                    f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}. Choose one of these."
                )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SvdSettings:
        """Settings of values by field name.

        Raises:
            SettingsError: an unknown name, or a value that can't be.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean `{near[0]}`?" if near else f"There are {', '.join(known)}."
                raise SettingsError(f"`{name}` is no setting of image to video. {hint}")
        return cls(**values)


def check_size(settings: SvdSettings, multiple: int) -> None:
    """Refuse sides that the networks can't halve often enough.

    Args:
        settings: the run.
        multiple: pixels that both sides must be multiples of.

    Raises:
        SettingsError: they aren't.
    """
    for name in ("width", "height"):
        value = getattr(settings, name)
        if value % multiple:
            below = max(multiple, value // multiple * multiple)
            raise SettingsError(
                f"`{name}` must be a multiple of {multiple}, got {value}. Take {below} or {below + multiple}."
            )


def _optional() -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(SvdSettings) if field.default is None)


def _check_number(name: str, value: object, low: float, high: float) -> None:
    whole = name not in _FRACTIONS
    fits = isinstance(value, int) if whole else isinstance(value, int | float) and math.isfinite(value)
    if isinstance(value, bool) or not fits or not low <= value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        raise SettingsError(f"`{name}` must be {kind} from {low} to {high}, got {value!r}. Choose another value.")
