"""The shipped shapes models in a web UI: the embedded host's clips, and what they show."""

from __future__ import annotations

import pytest

from motion.checkpoints.text_folder import FOLDER_PLACEHOLDER
from motion.standalone.demo_files import MOTION_MODULE, copy_demo_files
from motion.training.shapes_judge import score_text_clip
from tests.contract.server import Launch, make_data_dir, running
from tests.video.clips import psnr

pytestmark = pytest.mark.real_host

SAMPLERS = ("Euler", "Euler a", "DPM++ 2M", "DDIM")
PROMPT = "a yellow star moving left on a grey background"
LEAST_PSNR = 40


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The shipped models, the yaml with the folder of the text encoder as web UIs want it: a path."""
    folder = tmp_path_factory.mktemp("shapes")
    checkpoint, _ = copy_demo_files(folder)
    yaml, text = checkpoint.with_suffix(".yaml"), checkpoint.with_name(f"{checkpoint.stem}-text")
    content = yaml.read_text(encoding="utf-8")
    yaml.write_text(content.replace(FOLDER_PLACEHOLDER, text.as_posix()), encoding="utf-8")
    return folder / "models"


@pytest.fixture(scope="module")
def hosts(webui_launch, models, tmp_path_factory):
    """(the embedded host, the web UI), both with the shapes models alone."""
    if webui_launch.kind != "a1111":
        pytest.skip("Forge guesses a checkpoint's widths and reads no yaml")
    folder = tmp_path_factory.mktemp("shapes-hosts")
    ours = make_data_dir(folder / "ours", with_extension=False, models=models, checkpoint="shapes")
    theirs = make_data_dir(folder / "theirs", with_extension=True, models=models, checkpoint="shapes")
    with (
        running(Launch.embedded(), ours, folder / "ours.log") as embedded,
        running(webui_launch, theirs, folder / "theirs.log") as webui,
    ):
        yield embedded, webui


def clip(host, sampler):
    return host.clip(
        module=MOTION_MODULE.name, frames=16, prompt=PROMPT, sampler_name=sampler, steps=20, cfg_scale=4, seed=3
    ).pixels


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clips_of_the_shapes_models(hosts, report, sampler):
    ours, theirs = (clip(host, sampler) for host in hosts)
    likeness = psnr(ours, theirs)
    report.figures[f"PSNR to the embedded host, shapes models, {sampler}"] = round(min(likeness, 99.0), 1)
    assert likeness >= LEAST_PSNR
    scores = score_text_clip(theirs, PROMPT)
    assert (scores.colour, scores.shape, scores.direction) == (True, True, True)
