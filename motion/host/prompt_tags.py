"""Motion LoRAs as a request names them: in a field of the accordion, and as tags in its prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from motion.conditioning.lora_tags import MotionLoraRequest, take_motion_lora_tags
from motion.errors import SettingsError

_PROMPT_LISTS = ("all_prompts", "all_hr_prompts")


def requests_in_field(text: str, is_motion_lora: Callable[[str], bool]) -> tuple[MotionLoraRequest, ...]:
    """What the field `motion_loras` asks for.

    Raises:
        SettingsError: a tag names no motion LoRA, or is malformed.
    """
    rest, requests = take_motion_lora_tags(text, is_motion_lora)
    if rest.strip():
        raise SettingsError(
            f"`motion_loras` must name motion LoRAs, got {rest.strip()}, which is none. Put the file into the web UI's "
            "LoRA folder; an ordinary LoRA's tag belongs into the prompt."
        )
    return requests


def take_tags_from_prompts(p: Any, is_motion_lora: Callable[[str], bool]) -> tuple[MotionLoraRequest, ...]:
    """Take our tags out of the prompts of `p`, after styles and other extensions have made them, before the host looks
    for its own LoRAs in them. The hires prompt may repeat them or leave them out.

    Raises:
        SettingsError: a malformed tag, or frames or passes of one request with different motion LoRAs.
    """
    found: dict[str, set[tuple[MotionLoraRequest, ...]]] = {}
    for name in _PROMPT_LISTS:
        prompts = getattr(p, name, None) or []
        taken = {prompt: take_motion_lora_tags(prompt, is_motion_lora) for prompt in set(prompts)}
        if prompts:
            setattr(p, name, [taken[prompt][0] for prompt in prompts])
        found[name] = {requests for _, requests in taken.values()}
    main, hires = (found[name] for name in _PROMPT_LISTS)
    if len(main) > 1 or hires - main - {()}:
        raise SettingsError(
            "All frames and both passes of a clip must have the same motion LoRAs, got different tags in their "
            "prompts. Use frame ranges instead, such as <lora:pan:0.8@0-7>."
        )
    return next(iter(main), ())
