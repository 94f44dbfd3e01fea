"""The page of `python -m motion serve`, in a browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import av
import httpx
import pytest
from PIL import Image

from tests.browser.chromium import Page, browser
from tests.browser.served import served
from tests.demo_host import made_files
from tests.training.tiny_lora import write_video

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]

# Changes a control's default after the scripts have made their controls, as A1111 does with what ui-config.json holds.
SAVED_DEFAULTS = """
from modules import script_callbacks, scripts


def restore():
    for component in scripts.scripts_img2img.inputs:
        if getattr(component, "elem_id", None) == "img2img_motion_module_family":
            component.value = "animate_lcm"
    return []


script_callbacks.on_ui_tabs(restore)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(made_files(tmp_path_factory)[0] / "models", folder / "models")
    scripts = folder / "extensions" / "saved-defaults" / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "saved_defaults.py").write_text(SAVED_DEFAULTS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(driver, data_dir, tmp_path_factory):
    with served(data_dir, tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture
def page(driver, address):
    page = Page(driver, address)
    page.type("#txt2img_prompt textarea", "a lighthouse")
    for name, value in (("width", 64), ("height", 64), ("steps", 2), ("seed", 5)):
        page.number(f"txt2img_{name}", value)
    return page


def open_motion(page, **numbers):
    page.click("#txt2img_motion > button, #txt2img_motion .label-wrap")
    page.click("#txt2img_motion-checkbox input")
    for name, value in numbers.items():
        page.number(f"txt2img_motion_{name}", value)


def test_a_clip(page, data_dir, tmp_path):
    outputs = data_dir / "outputs" / "txt2img-images" / "motion"
    open_motion(page, num_frames=4)
    page.choose("txt2img_motion_motion_module", "mm-v2")
    page.click("#txt2img_generate")
    page.wait(lambda: page.loaded("#txt2img_gallery img"))
    page.wait(lambda: page.loaded("#txt2img_clip video"))
    page.driver.save_screenshot(str(tmp_path / "page.png"))

    assert "Motion frames: 4" in page.text("#html_info_txt2img")
    assert page.all(".error") == []
    (mp4,), (gif,) = outputs.glob("*.mp4"), outputs.glob("*.gif")
    with av.open(str(mp4)) as container:
        assert len(list(container.decode(video=0))) == 4
    with Image.open(gif) as image:
        assert image.n_frames == 4
    assert mp4.name in page.text("#txt2img_clip")


def test_a_wrong_number_is_one_plain_message(page):
    open_motion(page, num_frames=0)
    page.click("#txt2img_generate")
    page.wait(lambda: page.all("#html_log_txt2img .error"))
    assert page.text(".error") == (
        "`num_frames` must be a whole number from 1 to 4096, got 0. Choose a value in this range."
    )


def test_progress_and_interrupt(page, address):
    page.number("txt2img_steps", 150)
    page.click("#txt2img_generate")
    page.wait(lambda: re.search(r"Step \d+/150.*left", page.text("#txt2img_progress")))
    page.click("#txt2img_interrupt")
    page.wait(lambda: page.loaded("#txt2img_gallery img"))
    page.wait(lambda: page.text("#txt2img_progress") == "")
    state = httpx.get(f"{address}/sdapi/v1/progress", trust_env=False).json()["state"]
    assert state["sampling_step"] < 149
    assert state["interrupted"]


def test_img2img(page, tmp_path):
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "start.png")
    next(tab for tab in page.all("button[role=tab]") if tab.text == "img2img").click()
    page.click("#img2img_generate")
    page.wait(lambda: "needs a picture to start from" in page.text("#html_log_img2img .error"))
    page.find("#img2img_image input[type=file]").send_keys(str(tmp_path / "start.png"))
    page.wait(lambda: page.loaded("#img2img_image img"))
    for name, value in (("width", 64), ("height", 64), ("steps", 2)):
        page.number(f"img2img_{name}", value)
    page.click("#img2img_generate")
    page.wait(lambda: page.loaded("#img2img_gallery img"))
    assert "Denoising strength: 0.75" in page.text("#html_info_img2img")


def test_an_infotext_fills_the_controls(page):
    infotext = "a harbour\nSteps: 7, Sampler: DDIM, CFG scale: 3, Seed: 12, Size: 128x64"
    page.type("#txt2img_prompt textarea", infotext)
    page.click("#txt2img_paste")
    page.wait(lambda: page.find("#txt2img_seed input").get_property("value") == "12")
    assert page.find("#txt2img_steps input[type=number]").get_property("value") == "7"
    assert page.find("#txt2img_sampling input").get_property("value") == "DDIM"
    assert page.find("#txt2img_prompt textarea").get_property("value") == "a harbour"
    assert not page.find("#txt2img_hr-checkbox input").is_selected()
    hires = infotext.replace("Seed: 12", "Seed: 13, Denoising strength: 0.6, Hires upscale: 1.5")
    page.type("#txt2img_prompt textarea", hires)
    page.click("#txt2img_paste")
    page.wait(lambda: page.find("#txt2img_seed input").get_property("value") == "13")
    page.wait(lambda: page.find("#txt2img_hr-checkbox input").is_selected())
    assert page.find("#txt2img_hr_scale input[type=number]").get_property("value") == "1.5"


def test_the_status_line_describes_the_defaults_that_a_host_restored_and_then_what_is_chosen(page):
    assert page.text("#txt2img_motion_status") == ""  # inside the closed accordion
    open_motion(page)
    page.wait(
        lambda: page.text("#txt2img_motion_status").startswith("AnimateDiff v2 (SD1.5), trained on 16 frames, up to 32")
    )
    next(tab for tab in page.all("button[role=tab]") if tab.text == "img2img").click()
    page.click("#img2img_motion > button, #img2img_motion .label-wrap")
    page.wait(lambda: page.text("#img2img_motion_status").startswith("AnimateLCM (SD1.5), trained on 16 frames"))
    page.click("#img2img_motion_details_group > button, #img2img_motion_details_group .label-wrap")
    page.choose("img2img_motion_module_family", "hotshot_xl")
    page.wait(lambda: "must be one of sd15_v1, sd15_v2" in page.text("#img2img_motion_status"))


def test_a_training_is_started_watched_and_stopped(page, data_dir, tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4")
    next(tab for tab in page.all("button[role=tab]") if tab.text == "Train motion LoRA").click()
    page.type("#motion_train_videos input, #motion_train_videos textarea", tmp_path)
    page.type("#motion_train_name input, #motion_train_name textarea", "boxes")
    page.type("#motion_train_size input, #motion_train_size textarea", 64)
    for name, value in (("rank", 2), ("steps", 500)):
        page.number(f"motion_train_{name}", value)
    assert len(page.all("#motion_train_start")) == 1
    page.click("#motion_train_more > button, #motion_train_more .label-wrap")
    for name, value in (("frames", 4), ("sample_every", 2)):
        page.number(f"motion_train_{name}", value)
    page.click("#motion_train_start")
    page.wait(lambda: re.search(r"Step \d+ of 500, loss", page.text("#motion_train_status")))
    page.wait(lambda: page.loaded("#motion_train_curve img") and page.loaded("#motion_train_sheet img"))
    page.driver.save_screenshot(str(tmp_path / "train.png"))
    assert "2 of 2 videos" in page.find("#motion_train_report textarea").get_property("value")
    page.click("#motion_train_stop")
    page.wait(lambda: "of 500; the state is saved" in page.text("#motion_train_status"))
    assert list((data_dir / "motion-training" / "boxes").glob("state-*.safetensors"))


def test_the_page_asks_no_other_host(page, address):
    entries = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(address) for url in asked)
    assert [url for url in asked if not url.startswith((address, "data:", "blob:", "chrome"))] == []
