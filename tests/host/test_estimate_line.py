"""The accordion's line that says what a clip will take."""

import gradio as gr
import pytest

from motion.standalone import sd_models

VALUES = {
    "motion_module": "v2",
    "module_family": "auto",
    "num_frames": 48,
    "context_length": 0,
    "context_overlap": -1,
    "context_stride": 1,
    "closed_loop": False,
    "context_schedule": "uniform",
    "window_scope": "auto",
    "steps": 20,
    "width": 64,
    "height": 64,
}


@pytest.fixture
def tell(studio, monkeypatch):
    from motion.host.estimate_line import estimate_text

    monkeypatch.setattr(sd_models.model_data, "sd_model", studio.model)
    return lambda **values: estimate_text(studio.script.files, {**VALUES, **values})


def test_it_names_frames_windows_steps_rows_and_memory(tell):
    assert tell().startswith("48 frames · 4 windows × 20 steps, 96 UNet rows in each (scope attention) · about 0.0 GiB")
    assert "48 frames · 5 windows × 20" in tell(context_overlap=8)
    assert tell(num_frames=16).startswith("16 frames · 1 window × 20 steps, 32 UNet rows in each · about")


def test_the_hires_pass_is_the_larger_one(tell):
    def gib(**values):
        return float(tell(num_frames=4096, window_scope="attention", **values).split(" about ")[1].split()[0])

    plain = gib()
    assert gib(enable_hr=True, hr_scale=2.0) == pytest.approx(4 * plain, rel=0.1)
    assert gib(enable_hr=False, hr_scale=2.0) == plain


def test_without_a_model_or_steps_it_says_what_is_known(tell, monkeypatch):
    monkeypatch.setattr(sd_models.model_data, "sd_model", None)
    assert tell() == "48 frames · 4 windows × 20 steps"
    assert tell(steps=None) == "48 frames · 4 windows a step"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"motion_module": None}, ""),
        ({"motion_module": "nothing"}, "nothing"),
        ({"num_frames": None}, "`num_frames` must be a whole number"),
        ({"context_overlap": 16}, "`context_overlap` must be smaller than `context_length` (16), got 16"),
    ],
)
def test_what_would_be_refused_is_a_message(tell, values, text):
    assert text in tell(**values)
    assert bool(text) == bool(tell(**values))


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_it_follows_the_accordion_and_the_web_uis_own_controls(studio, tab):
    from motion.host.script import MotionScript

    script = MotionScript()
    script.is_img2img = tab == "img2img"
    with gr.Blocks() as page:
        for name in ("steps", "width", "height", "cfg_scale", "hr-checkbox"):
            elem_id = f"{tab}_{name}"
            script.after_component(gr.Number(20, elem_id=elem_id), elem_id=elem_id)
        script.ui(script.is_img2img)
    (line,) = (block for block in page.blocks.values() if block.elem_id == f"{tab}_motion_estimate")
    wired = [fn for fn in page.fns.values() if line in fn.outputs]
    sources = {page.blocks[block].elem_id for fn in wired for block, event in fn.targets if event == "change"}
    assert sources >= {f"{tab}_{name}" for name in ("steps", "width", "height", "hr-checkbox", "motion_num_frames")}
    assert f"{tab}_cfg_scale" not in sources
