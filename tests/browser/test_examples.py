"""The example prompts of `python -m motion serve` in a new data folder, in a browser."""

from __future__ import annotations

import av
import numpy as np
import pytest

from motion.training.shapes_judge import score_text_clip
from tests.browser.chromium import Page, browser
from tests.browser.served import served

pytestmark = pytest.mark.browser

PROMPT = "a green square moving up on a black background"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def test_a_click_and_generate_make_the_clip_that_the_example_promises(driver, tmp_path):
    data_dir, log = tmp_path / "data", tmp_path / "log"
    data_dir.mkdir()
    with served(data_dir, log) as address:
        page = Page(driver, address)
        page.click("#txt2img_example_1")
        page.wait(lambda: page.value("#txt2img_prompt textarea") == PROMPT)
        page.wait(lambda: page.value("#txt2img_width input[type=number]") == "64")
        page.click("#txt2img_generate")
        page.wait(lambda: page.loaded("#txt2img_clip video"))
        page.driver.save_screenshot(str(tmp_path / "page.png"))
        assert page.all(".error") == []
    (mp4,) = data_dir.rglob("*.mp4")
    with av.open(str(mp4)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    scores = score_text_clip(frames, PROMPT)
    assert (len(frames), scores.colour, scores.shape, scores.direction) == (16, True, True, True)
    assert "the demo's small models are now in" in log.read_text()
