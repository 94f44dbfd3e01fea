"""Below the accordion's fields: what each frame will show and how it will move, before anything is made."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from motion.conditioning.motion_strength import frame_values
from motion.conditioning.prompt_schedule import describe_values, resolve
from motion.conditioning.prompt_travel import check_travel, read_prompt
from motion.errors import MotionError
from motion.settings import MotionSettings


def add_schedule_panel(tab: str, prompts: Sequence[Any], num_frames: Any, closed_loop: Any, scales: Any) -> None:
    """Make the panel, inside the host's current Blocks context.

    It is brought up to date when a box of text is left and when the number of frames changes.

    Args:
        tab: "txt2img" or "img2img", part of the element id.
        prompts: the tab's boxes for prompt and negative prompt; without them there is no panel.
        num_frames: control of the field of this name.
        closed_loop: control of the field of this name.
        scales: control of `motion_scale_frames`.
    """
    if len(prompts) != 2:
        return
    panel = gr.HTML("", elem_id=f"{tab}_motion_prompt_schedule")
    wiring: dict[str, Any] = {
        "inputs": [*prompts, num_frames, closed_loop, scales],
        "outputs": [panel],
        "show_progress": False,
    }
    for box in (*prompts, scales):
        box.blur(schedule_of, **wiring)
    for control in (num_frames, closed_loop):
        control.change(schedule_of, **wiring)


def schedule_of(prompt: str, negative_prompt: str, num_frames: Any, closed_loop: Any, scales: Any) -> str:
    """HTML: nothing where all frames are alike, a message for what would be refused, or who shows what."""
    parts = []
    try:
        settings = MotionSettings.from_mapping(
            {"num_frames": num_frames, "closed_loop": closed_loop, "motion_scale_frames": scales}
        )
        for title, text in (("Prompt", prompt), ("Negative prompt", negative_prompt)):
            found = read_prompt(text or "")
            if found.is_travel:
                check_travel(found, is_negative=title != "Prompt")
                schedule = resolve(found, settings.num_frames, closed_loop=settings.closed_loop)
                parts.append(f"{title}, frame by frame:\n{schedule.describe()}")
        values = frame_values(settings.motion_scale_frames, settings.num_frames, closed_loop=settings.closed_loop)
        if len(set(values)) > 1:
            parts.append(f"Motion scale, frame by frame:\n{describe_values(values)}")
    except MotionError as error:
        return escape(str(error))
    text = escape("\n".join(parts))
    return f"<pre style='white-space: pre-wrap'>{text}</pre>" if parts else ""
