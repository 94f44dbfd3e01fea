"""What the accordion shows of a travelling prompt before anything is made."""

import gradio as gr
import pytest

TRAVEL = "1girl\n0: <b> eyes\n2: open eyes"


@pytest.fixture
def panel(studio):
    from motion.host.script import MotionScript

    script = MotionScript()
    script.is_img2img = False
    with gr.Blocks() as page:
        for elem_id in ("txt2img_prompt", "img2img_prompt", "txt2img_neg_prompt"):
            script.after_component(gr.Textbox(elem_id=elem_id), elem_id=elem_id)
        script.ui(False)
    (html,) = (block for block in page.blocks.values() if block.elem_id == "txt2img_motion_prompt_schedule")
    return page, html


def test_it_follows_the_prompts_and_the_number_of_frames(panel):
    page, html = panel
    wired = [fn for fn in page.fns.values() if html in fn.outputs]
    sources = {(page.blocks[block].elem_id, event) for fn in wired for block, event in fn.targets}
    assert sources == {
        ("txt2img_prompt", "blur"),
        ("txt2img_neg_prompt", "blur"),
        ("txt2img_motion_motion_scale_frames", "blur"),
        ("txt2img_motion_num_frames", "change"),
        ("txt2img_motion_closed_loop", "change"),
    }
    text = wired[0].fn(TRAVEL, "0: fog", 4, False, "0: 1, -1: 0.4")
    assert "Prompt, frame by frame:\n0: 1girl, &lt;b&gt; eyes\n1: to the next prompt, 50%\n2-3: 1girl, open" in text
    assert "Negative prompt, frame by frame:\n0-3: fog" in text
    assert "Motion scale, frame by frame:\n0 1, 1 0.8, 2 0.6, 3 0.4" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("1girl: best\nsmile", "", 4, False, "0.5"), ""),
        ((None, None, 4, False, None), ""),
        (("0: a\n8: b", "", 4, False, ""), "&#x27;8: b&#x27;: Frame 8 is outside the clip, whose frames are 0 to 3"),
        (("a", "0 cfg=3: b", 4, False, ""), "not into the negative prompt"),
        (("0: a", "", None, False, ""), "`num_frames` must be a whole number"),
        (("a", "", 4, False, "1, 2"), "one for each (4), or keyframes, got 2 values"),
    ],
)
def test_ordinary_prompts_show_nothing_and_bad_ones_a_message(web_ui, values, text):
    from motion.host.schedule_panel import schedule_of

    shown = schedule_of(*values)
    assert (shown == "") if not text else (text in shown)


def test_without_the_hosts_prompts_there_is_no_panel(studio):
    with gr.Blocks() as page:
        studio.script.ui(False)
    assert "txt2img_motion_prompt_schedule" not in {block.elem_id for block in page.blocks.values()}
