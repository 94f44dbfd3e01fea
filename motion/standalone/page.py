"""The page: txt2img and img2img tabs around the extension's own controls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.context import Context

from motion.standalone import host_state, infotext, script_callbacks, scripts, sd_models, shared
from motion.standalone.page_examples import build_examples
from motion.standalone.page_tab import GenerationTab
from motion.standalone.ui_common import create_refresh_button

TITLE = "Motion"
CSS = """
footer { display: none !important; }
.motion-progress { position: relative; height: 1.6em; border-radius: 4px; overflow: hidden;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.motion-progress div { height: 100%; background: var(--primary-400, #6aa7ff); opacity: .55; }
.motion-progress span { position: absolute; inset: 0; text-align: center; line-height: 1.6em; font-size: .9em; }
.error { color: #b91c1c; background: #fef2f2; border: 1px solid #fca5a5; border-radius: 4px; padding: .6em .8em; }
.infotext p, .html-log p { overflow-wrap: anywhere; margin: .3em 0; }
button.tool { flex: 0 0 3.2em !important; min-width: 3.2em !important; align-self: end; }
.form:has(> button.tool) { background: transparent; }
.clip video { width: 100%; max-height: 40vh; background: #000; border-radius: 4px; }
"""


def build_page() -> gr.Blocks:
    """The whole page, the scripts' controls included.

    Raises:
        RuntimeError: no scripts are loaded.
    """
    host = host_state.current()
    if host.scripts_txt2img is None or host.scripts_img2img is None:
        raise RuntimeError("No scripts are loaded. Call motion.standalone.scripts.load_scripts() first.")
    script_callbacks.before_ui_callback()
    infotext.reset()
    # Named fonts only: the default theme's come from the network.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    with gr.Blocks(theme=theme, css=CSS, title=TITLE, analytics_enabled=False) as page:
        checkpoint = _checkpoint_row()
        with gr.Tabs(elem_id="tabs"):
            for name, runner in (("txt2img", scripts.scripts_txt2img), ("img2img", scripts.scripts_img2img)):
                with gr.Tab(name, id=name, elem_id=f"tab_{name}"):
                    if name == "txt2img":
                        build_examples(checkpoint)
                    GenerationTab(name, runner).build()
            _extension_tabs()
        infotext.connect_paste_params_buttons()
    host.demo = page
    return page


def _checkpoint_row() -> Any:
    """The row's drop-down of checkpoints."""
    with gr.Row(elem_id="quicksettings"):
        chosen = shared.opts.sd_model_checkpoint
        known = sd_models.checkpoint_tiles()
        dropdown = gr.Dropdown(
            label="Stable Diffusion checkpoint",
            elem_id="setting_sd_model_checkpoint",
            choices=known,
            value=chosen if chosen in known else (known[0] if known else None),
            scale=3,
        )
        create_refresh_button(
            dropdown,
            sd_models.list_models,
            lambda: {"choices": sd_models.checkpoint_tiles()},
            "refresh_sd_model_checkpoint",
        )
        gr.HTML("<p>Clips from Stable Diffusion checkpoints; everything runs on this machine.</p>")
    dropdown.change(_choose_checkpoint, inputs=[dropdown], outputs=[], show_progress="hidden")
    return dropdown


def _choose_checkpoint(title: str | None) -> None:
    """The next job loads it."""
    if title:
        shared.opts.set("sd_model_checkpoint", title)


def _extension_tabs() -> None:
    with _outside_the_page():
        tabs = script_callbacks.ui_tabs_callback()
    for tab, title, elem_id in tabs:
        with gr.Tab(title, id=elem_id, elem_id=f"tab_{elem_id}"):
            tab.render()


@contextmanager
def _outside_the_page() -> Iterator[None]:
    """Where extensions make tabs: pages of their own, as in A1111; inside this page gradio would show them twice."""
    root, block = Context.root_block, Context.block
    Context.root_block = Context.block = None
    try:
        yield
    finally:
        Context.root_block, Context.block = root, block


class ServedFolders:
    """Folders whose files the page may show: those of the outputs, as the options name them when it is asked."""

    def __iter__(self) -> Iterator[str]:
        for kind in ("samples", "grids"):
            for name in (f"outdir_{kind}", f"outdir_txt2img_{kind}", f"outdir_img2img_{kind}"):
                folder = getattr(shared.opts, name)
                if folder:
                    yield os.path.abspath(folder)
