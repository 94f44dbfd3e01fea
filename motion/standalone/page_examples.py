"""Example prompts to click, for the models that come with the program."""

from __future__ import annotations

from typing import Any

import gradio as gr

from motion.standalone import infotext, sd_models
from motion.standalone.demo_command import DEMO_MOTION, demo_settings
from motion.standalone.demo_files import CHECKPOINT

EXAMPLES = (
    "a red circle moving right on a blue background",
    "a green square moving up on a black background",
    "a yellow star moving left on a grey background",
    "a purple triangle moving down on a brown background",
    "a white star turning on a blue background",
)


def build_examples(checkpoint: Any) -> None:
    """Buttons that fill in a prompt with all settings, where the data folder has the shipped models.

    Args:
        checkpoint: the page's drop-down, on which the models are chosen too.
    """
    info = sd_models.get_closet_checkpoint_match(CHECKPOINT.name)
    if info is None or info.name != CHECKPOINT.name:
        return
    with gr.Row(elem_id="txt2img_examples"):
        for number, prompt in enumerate(EXAMPLES):
            button = gr.Button(prompt, size="sm", elem_id=f"txt2img_example_{number}")
            text = gr.Textbox(value=example_infotext(prompt), visible=False)
            infotext.register_paste_params_button(infotext.ParamBinding(button, "txt2img", source_text_component=text))
            button.click(lambda: info.title, inputs=[], outputs=[checkpoint], show_progress="hidden")


def example_infotext(prompt: str) -> str:
    """The demo's settings with `prompt`, as an infotext."""
    settings = demo_settings(prompt)
    fields = {
        "Steps": settings.steps,
        "Sampler": settings.sampler,
        "CFG scale": settings.cfg_scale,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        **DEMO_MOTION.to_infotext(),
    }
    return f"{prompt}\n" + ", ".join(f"{key}: {value}" for key, value in fields.items())
