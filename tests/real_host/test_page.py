"""A clip through a web UI's own page, in a headless browser."""

from __future__ import annotations

import shutil

import pytest

pytestmark = [pytest.mark.real_host, pytest.mark.browser]
selenium = pytest.importorskip("selenium")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1400,1900"),
)
SECONDS = 120
# Gradio listens to "input"; a value set by script alone would not reach it.
SET_VALUE = (
    "arguments[0].value = arguments[1];"
    "arguments[0].dispatchEvent(new Event('input', {bubbles: true}));"
    "arguments[0].dispatchEvent(new Event('change', {bubbles: true}));"
)


@pytest.fixture(scope="module")
def browser():
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


def fill(browser, selector: str, value: str) -> None:
    browser.execute_script(SET_VALUE, browser.find_element(By.CSS_SELECTOR, selector), value)


def test_a_clip_through_the_page(host, report, browser):
    wait = WebDriverWait(browser, SECONDS)
    browser.get(host.address)
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#txt2img_generate"))
    wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "#txt2img_motion").is_displayed())
    fill(browser, "#txt2img_prompt textarea", "a lighthouse")
    for name, value in (("steps", "2"), ("width", "64"), ("height", "64")):
        fill(browser, f"#txt2img_{name} input[type=number]", value)
    browser.find_element(By.CSS_SELECTOR, "#txt2img_motion .label-wrap").click()  # open is enabled
    wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "#txt2img_motion_num_frames").is_displayed())
    assert browser.find_element(By.CSS_SELECTOR, "#txt2img_motion-visible-checkbox").is_selected()
    fill(browser, "#txt2img_motion_num_frames input", "4")
    browser.save_screenshot(str(report.path.with_name("page-before.png")))
    browser.find_element(By.CSS_SELECTOR, "#txt2img_generate").click()
    wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#txt2img_gallery img"))
    wait.until(lambda page: "Motion: saved" in page.page_source)
    browser.save_screenshot(str(report.path.with_name("page-after.png")))
    clips = [name for name in host.written_files() if name.endswith((".mp4", ".gif")) and "motion" in name]
    assert len(clips) >= 2
