"""One tab of the page: prompts, settings, the scripts' controls, results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from motion.standalone import infotext, samplers, shared
from motion.standalone.page_job import PageJob
from motion.standalone.render_settings import RESIZE_MODES
from motion.standalone.samplers.schedulers import schedulers
from motion.standalone.ui_components import InputAccordion, ToolButton


class GenerationTab:
    """Controls and results of txt2img or img2img.

    Args:
        name: "txt2img" or "img2img", the beginning of the element ids, which are A1111's.
        runner: the tab's scripts.
    """

    def __init__(self, name: str, runner: Any) -> None:
        self.name = name
        self._runner = runner
        self._fields: dict[str, Any] = {}
        """Argument of the processing class -> component."""
        self._paste_fields: list[Any] = []

    def build(self) -> None:
        """Make the tab inside the page that is being built."""
        self._runner.initialize_scripts(self.name == "img2img")
        self._runner.prepare_ui()
        with gr.Row(elem_id=f"{self.name}_toprow"):
            self._prompts()
            generate, interrupt = self._buttons()
        with gr.Row(elem_id=f"{self.name}_main", equal_height=False):
            with gr.Column(scale=6, elem_id=f"{self.name}_settings"):
                self._settings()
                with gr.Group(elem_id=f"{self.name}_script_container"):
                    inputs = self._runner.setup_ui()
            with gr.Column(scale=5, elem_id=f"{self.name}_results"):
                outputs = self._results()
        self._connect(generate, interrupt, inputs, outputs)

    def _add(self, field: str, component: Any, pasted: Any = None) -> Any:
        self._fields[field] = component
        self._runner.announce(component)
        if pasted is not None:
            self._paste_fields.append(infotext.PasteField(component, pasted, api=field))
        return component

    def _prompts(self) -> None:
        with gr.Column(scale=6):
            for field, elem_id, label, key in (
                ("prompt", "prompt", "Prompt", "Prompt"),
                ("negative_prompt", "neg_prompt", "Negative prompt", "Negative prompt"),
            ):
                box = gr.Textbox(
                    value="",
                    label=label,
                    show_label=False,
                    placeholder=label,
                    lines=2,
                    elem_id=f"{self.name}_{elem_id}",
                )
                self._add(field, box, key)

    def _buttons(self) -> tuple[Any, Any]:
        with gr.Column(scale=1, min_width=160, elem_id=f"{self.name}_actions_column"):
            generate = gr.Button("Generate", variant="primary", elem_id=f"{self.name}_generate")
            interrupt = gr.Button("Interrupt", elem_id=f"{self.name}_interrupt")
            paste = ToolButton(value="↙", elem_id=f"{self.name}_paste")
        for button in (generate, interrupt, paste):
            self._runner.announce(button)
        binding = infotext.ParamBinding(paste, self.name, source_text_component=self._fields["prompt"])
        infotext.register_paste_params_button(binding)
        return generate, interrupt

    def _settings(self) -> None:
        if self.name == "img2img":
            self._picture()
        names = samplers.visible_sampler_names()
        with gr.Row(elem_id=f"sampler_selection_{self.name}"):
            sampler = gr.Dropdown(
                label="Sampling method", choices=names, value=names[0], elem_id=f"{self.name}_sampling"
            )
            self._add("sampler_name", sampler, samplers.get_sampler_from_infotext)
            schedule = gr.Dropdown(
                label="Schedule type",
                choices=[entry.label for entry in schedulers],
                value=schedulers[0].label,
                elem_id=f"{self.name}_scheduler",
            )
            self._add("scheduler", schedule, samplers.get_scheduler_from_infotext)
            self._slider("steps", "steps", "Sampling steps", 1, 150, 1, 20, "Steps")
        with gr.Row():
            self._slider("width", "width", "Width", 64, 2048, 8, 512, "Size-1")
            self._slider("height", "height", "Height", 64, 2048, 8, 512, "Size-2")
        with gr.Row():
            self._slider("cfg_scale", "cfg_scale", "CFG Scale", 1, 30, 0.5, 7, "CFG scale")
            self._slider("n_iter", "batch_count", "Batch count", 1, 100, 1, 1)
            seed = gr.Number(label="Seed (-1 draws one)", value=-1, precision=0, elem_id=f"{self.name}_seed")
            self._add("seed", seed, "Seed")
        if self.name == "txt2img":
            self._hires()

    def _slider(
        self, field: str, elem_id: str, label: str, low: float, high: float, step: float, value: float, key: Any = None
    ) -> None:
        slider = gr.Slider(low, high, value, step=step, label=label, elem_id=f"{self.name}_{elem_id}")
        self._add(field, slider, key)

    def _hires(self) -> None:
        upscalers = [*shared.latent_upscale_modes, *(entry.name for entry in shared.sd_upscalers)]
        with InputAccordion(False, label="Hires. fix", elem_id="txt2img_hr") as enabled:
            self._add("enable_hr", enabled, _asks_for_hires)
            with gr.Row():
                upscaler = gr.Dropdown(
                    label="Upscaler", choices=upscalers, value=upscalers[0], elem_id="txt2img_hr_upscaler"
                )
                self._add("hr_upscaler", upscaler, "Hires upscaler")
                self._slider("hr_scale", "hr_scale", "Upscale by", 1, 4, 0.05, 2, "Hires upscale")
            with gr.Row():
                self._slider("hr_second_pass_steps", "hires_steps", "Hires steps (0: as above)", 0, 150, 1, 0)
                self._slider(
                    "denoising_strength",
                    "denoising_strength",
                    "Denoising strength",
                    0,
                    1,
                    0.01,
                    0.7,
                    "Denoising strength",
                )

    def _picture(self) -> None:
        with gr.Row():
            picture = gr.Image(label="Picture to start from", type="pil", elem_id="img2img_image", height=280)
            self._add("init_images", picture)
            with gr.Column():
                modes = gr.Radio(
                    label="Resize mode",
                    choices=list(RESIZE_MODES),
                    value=RESIZE_MODES[0],
                    type="index",
                    elem_id="resize_mode",
                )
                self._add("resize_mode", modes)
                self._slider(
                    "denoising_strength",
                    "denoising_strength",
                    "Denoising strength",
                    0,
                    1,
                    0.01,
                    0.75,
                    "Denoising strength",
                )

    def _results(self) -> list[Any]:
        name = self.name
        progress = gr.HTML(elem_id=f"{name}_progress")
        clip = gr.HTML(elem_id=f"{name}_clip", elem_classes=["clip"])
        gallery = gr.Gallery(
            label="Output", show_label=False, columns=4, object_fit="contain", elem_id=f"{name}_gallery"
        )
        info = gr.HTML(elem_id=f"html_info_{name}", elem_classes=["infotext"])
        log = gr.HTML(elem_id=f"html_log_{name}", elem_classes=["html-log"])
        return [progress, clip, gallery, info, log]

    def _connect(self, generate: Any, interrupt: Any, inputs: list[Any], outputs: list[Any]) -> None:
        script_inputs = [component for component in inputs if component is not None]
        job = PageJob(self.name, self._runner, tuple(self._fields))
        generate.click(
            job.run, inputs=[*self._fields.values(), *script_inputs], outputs=outputs, show_progress="hidden"
        )
        # Past the queue, in which the running job is.
        interrupt.click(lambda: shared.state.interrupt(), inputs=[], outputs=[], queue=False, show_progress="hidden")
        picture = self._fields.get("init_images")
        infotext.add_paste_fields(self.name, picture, [*self._paste_fields, *self._runner.infotext_fields])


def _asks_for_hires(params: Mapping[str, Any]) -> bool:
    """Whether parsed infotext has a hires pass; parsers put a "Hires resize-1" of 0 where there is none."""
    return "Denoising strength" in params and ("Hires upscale" in params or bool(params.get("Hires resize-1")))
