"""Motion LoRAs in a prompt: `<lora:name:weight>`, with a frame range `<lora:name:weight@first-last>`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from motion.errors import SettingsError

MAX_WEIGHT = 2.0
# Any tag of the web UI, so that one inside another tag's text is not taken for a tag of its own.
_TAG = re.compile(r"<(\w+):([^>]+)>")
_RANGE = re.compile(r"(.*)@(\d{1,9})-(\d{1,9})", re.DOTALL)
_FORM = "Write <lora:name:0.8>, or <lora:name:0.8@0-15> for frames 0 to 15."


@dataclass(frozen=True)
class MotionLoraRequest:
    """One motion LoRA of a clip.

    Attributes:
        name: as the tag has it, a file name without its ending.
        weight: strength, -2 to 2.
        first_frame: first frame of its range, from 0; None for the whole clip.
        last_frame: last frame of its range, included; None for the whole clip.

    Raises:
        SettingsError: a weight out of range, or frames that are no range.
    """

    name: str
    weight: float = 1.0
    first_frame: int | None = None
    last_frame: int | None = None

    def __post_init__(self) -> None:
        if not -MAX_WEIGHT <= self.weight <= MAX_WEIGHT:
            raise SettingsError(
                f"The weight of motion LoRA {self.name!r} must be from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, "
                f"got {self.weight:g}. {_FORM}"
            )
        if (self.first_frame is None) != (self.last_frame is None):
            raise SettingsError(f"Motion LoRA {self.name!r} must have a first and a last frame, or neither. {_FORM}")
        if self.first_frame is None or self.last_frame is None:
            return
        if not 0 <= self.first_frame <= self.last_frame:
            raise SettingsError(
                f"The frames of motion LoRA {self.name!r} must be first-last, from 0, "
                f"got {self.first_frame}-{self.last_frame}. {_FORM}"
            )

    @property
    def tag(self) -> str:
        """The request as a tag."""
        frames = "" if self.first_frame is None else f"@{self.first_frame}-{self.last_frame}"
        return f"<lora:{self.name}:{self.weight!r}{frames}>"

    def frame_weights(self, num_frames: int) -> tuple[float, ...]:
        """Weight of each frame of a clip: `weight` in the range, 0 outside.

        Raises:
            SettingsError: the range ends after the clip.
        """
        if self.first_frame is None or self.last_frame is None:
            return (self.weight,) * num_frames
        if self.last_frame >= num_frames:
            raise SettingsError(
                f"The frames of motion LoRA {self.name!r} must end by frame {num_frames - 1}, the clip's last, "
                f"got {self.first_frame}-{self.last_frame}. Shorten the range or lengthen the clip."
            )
        chosen = range(self.first_frame, self.last_frame + 1)
        return tuple(self.weight if frame in chosen else 0.0 for frame in range(num_frames))


def take_motion_lora_tags(
    prompt: str, is_motion_lora: Callable[[str], bool]
) -> tuple[str, tuple[MotionLoraRequest, ...]]:
    """Take the tags of motion LoRAs out of a prompt; all other text stays as it is, to the letter.

    Tags have the web UI's forms: `<lora:name>` (weight 1), `<lora:name:weight>`, `<lora:name:te:unet>`, and named
    `te=`, `unet=`. A motion LoRA has nothing for a text encoder, so the UNet's weight is its weight.

    Args:
        prompt: the prompt.
        is_motion_lora: a tag's name -> whether that is a motion LoRA.

    Returns:
        The prompt without these tags, and what they ask for, in their order.

    Raises:
        SettingsError: a motion LoRA's tag has a weight that is no number or out of range, arguments that it can't
            have, or frames that are no range.
    """
    requests: list[MotionLoraRequest] = []

    def take(match: re.Match[str]) -> str:
        is_lora = match[1] in ("lora", "lyco")  # two names of the same in the web UI
        request = _read_tag(match[0], match[2], is_motion_lora) if is_lora else None
        if request is None:
            return match[0]
        requests.append(request)
        return ""

    return _TAG.sub(take, prompt), tuple(requests)


def _read_tag(tag: str, text: str, is_motion_lora: Callable[[str], bool]) -> MotionLoraRequest | None:
    """What a LoRA's tag with arguments `text` asks for, or None when it is none of a motion LoRA."""
    first = last = None
    ranged = _RANGE.fullmatch(text)
    if ranged is not None and not is_motion_lora(text):  # "pan@0-15" could be a file's name
        text, first, last = ranged[1], int(ranged[2]), int(ranged[3])
    items = text.split(":")
    # As the web UI tells named arguments from others.
    named = dict(item.split("=") for item in items if item.count("=") == 1)
    name, *weights = [item for item in items if item.count("=") != 1] or [""]
    if not is_motion_lora(name):
        return None
    if len(weights) > 2 or named.keys() - {"te", "unet"}:
        raise SettingsError(f"A motion LoRA takes a name, weights and frames only, got {tag}. {_FORM}")
    text_weight = _read_number(tag, named.get("te", weights[0] if weights else "1"))
    weight = named.get("unet", weights[1] if len(weights) > 1 else None)
    return MotionLoraRequest(name, text_weight if weight is None else _read_number(tag, weight), first, last)


def _read_number(tag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"The weight of a motion LoRA must be a number, got {text!r} in {tag}. {_FORM}") from None
