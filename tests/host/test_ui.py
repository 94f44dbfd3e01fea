"""The accordion's choosers and the line that describes the chosen module, as a page gets them."""

import os
import shutil

import gradio as gr
import pytest

from motion.checkpoints.inspection import describe, inspect_file
from motion.checkpoints.motion_families import MOTION_FAMILIES


@pytest.fixture
def files(studio):
    from motion.host.module_files import ModelFiles

    return ModelFiles()


def build(files, **saved):
    """The page and its controls, with the defaults that a host restores once the controls are made."""
    from motion.host.ui import build_controls

    with gr.Blocks() as page:
        controls = build_controls("txt2img", files)
        for name, value in saved.items():
            controls[name].value = value
    return page, controls


def answer(page, elem_id, event, *values):
    """What the page's function on an event, of an element or when it opens, gives for its inputs' values."""
    ids = [block._id for block in page.blocks.values() if elem_id and getattr(block, "elem_id", None) == elem_id]
    functions = (fn for fn in page.fns.values() if any(name == event for _, name in fn.targets))
    return next(fn.fn(*values) for fn in functions if not ids or fn.targets[0][0] in ids)


def families_of(control):
    return [value for _, value in control.choices]


def test_families_of_other_packages_are_offered(files, package):
    page, controls = build(files)
    assert families_of(controls["module_family"]) == ["auto", *MOTION_FAMILIES, "scale_shift"]
    update = answer(page, "txt2img_motion_refresh", "click")[3]
    assert update["choices"] == ["auto", *MOTION_FAMILIES, "scale_shift"]


def test_only_known_families_are_offered_without_such_packages(files):
    assert families_of(build(files)[1]["module_family"]) == ["auto", *MOTION_FAMILIES]


def test_a_motion_lora_that_is_chosen_becomes_a_tag_which_a_clip_takes(files, studio):
    page, controls = build(files)
    offered = next(block for block in page.blocks.values() if block.elem_id == "txt2img_motion_add_lora")
    assert [value for _, value in offered.choices] == ["pan.safetensors", "zoom.safetensors"]
    text = controls["motion_loras"].value
    for name in ("pan.safetensors", "zoom.safetensors", None):
        text, choice = answer(page, "txt2img_motion_add_lora", "input", text, name)
        assert choice["value"] is None
    assert text == "<lora:pan:1.0> <lora:zoom:1.0>"
    assert f'Motion LoRAs: "{text}"' in studio.clip({"motion_loras": text}).infotexts[0]


def test_refresh_offers_files_that_came_since(files, module_folder):
    page, _ = build(files)
    new = shutil.copy(module_folder / "v3.safetensors", module_folder / "newer.safetensors")
    try:
        modules = answer(page, "txt2img_motion_refresh", "click")[0]["choices"]
    finally:
        os.remove(new)
    assert "newer.safetensors" in modules
    assert "newer.safetensors" not in answer(page, "txt2img_motion_refresh", "click")[0]["choices"]


def test_status_of_a_new_page_follows_the_defaults_that_the_host_restored(files):
    page, _ = build(files)
    assert "AnimateDiff v1 (SD1.5), trained on 16 frames" in answer(page, None, "load")
    page, _ = build(files, motion_module="v3.safetensors")
    assert "AnimateDiff v3 (SD1.5), trained on 16 frames" in answer(page, None, "load")
    page, _ = build(files, motion_module="v2.safetensors", module_family="animate_lcm")
    assert answer(page, None, "load").startswith("AnimateLCM (SD1.5), trained on 16 frames")


def test_status_follows_the_choosers(files):
    page, _ = build(files)
    for chooser in ("motion_module", "module_family"):
        event = f"txt2img_motion_{chooser}", "change"
        assert answer(page, *event, "v2.safetensors", "auto").startswith("AnimateDiff v2 (SD1.5)")
        assert answer(page, *event, "v2.safetensors", "animate_lcm").startswith("AnimateLCM (SD1.5), trained")
        assert answer(page, *event, "v2.safetensors", "hotshot_xl").startswith(
            "This file can't be used: The family of this motion module must be one of sd15_v1"
        )
        assert answer(page, *event, None, None) == "Choose a motion module."


def test_all_that_inspect_says_is_folded_below_the_status(files, module_folder):
    page, _ = build(files)
    status = answer(page, "txt2img_motion_motion_module", "change", "v2.safetensors", "auto")
    facts = status.partition("<details>")[2]
    for line in describe(inspect_file(module_folder / "v2.safetensors")).splitlines():
        assert line.startswith("file:") or line in facts
    assert "file:         v2.safetensors\n" in facts  # and no folder of this machine


def test_status_names_the_fault_of_a_file(files):
    page, _ = build(files)
    event = "txt2img_motion_motion_module", "change"
    assert "This is a web page saved under the name of a weight file." in answer(
        page, *event, "text.safetensors", "auto"
    )
    assert "there is no motion module of this name" in answer(page, *event, "<b>", "auto")
    assert "<b>" not in answer(page, *event, "<b>", "auto")
