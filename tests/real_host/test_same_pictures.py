"""A web UI and the embedded host make the same pictures from the same weights and requests."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contract.clips import init_image, read_parameters
from tests.contract.server import Launch, make_data_dir, running

pytestmark = pytest.mark.real_host

SAMPLERS = ("Euler", "Euler a", "DPM++ 2M Karras", "DDIM", "LCM")
LARGEST_DIFFERENCE = 1  # in 8-bit steps: both round float32 results that agree to about 1e-5
PROMPT = {"prompt": "a (lighthouse:1.3) at [night], detailed", "negative_prompt": "fog"}
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.6}


@pytest.fixture(scope="module")
def embedded(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    data = make_data_dir(folder / "data", with_extension=False, models=host.data_dir / "models")
    with running(Launch.embedded(), data, folder / "host.log") as embedded:
        yield embedded


def check_alike(report, name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    largest = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
    report.figures[f"largest difference from the embedded host, {name}"] = largest
    assert largest <= LARGEST_DIFFERENCE


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stills(host, embedded, report, sampler):
    fields = {"sampler_name": sampler, "steps": 5, "batch_size": 2, **PROMPT}
    check_alike(report, f"still {sampler}", embedded.txt2img(**fields).pixels, host.txt2img(**fields).pixels)


@pytest.mark.parametrize("module", ["v1", "v2", "v3"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_clips(host, embedded, report, sampler, module):
    fields = {"sampler_name": sampler, "steps": 5, "module": module, **PROMPT}
    check_alike(report, f"clip {sampler} {module}", embedded.clip(**fields).pixels, host.clip(**fields).pixels)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM", "LCM"])
def test_clips_from_a_picture(host, embedded, report, sampler):
    fields = {"sampler_name": sampler, "steps": 5, "denoising_strength": 0.6, **PROMPT}
    ours, theirs = (one.clip_from(init_image(), **fields).pixels for one in (embedded, host))
    check_alike(report, f"img2img clip {sampler}", ours, theirs)


def test_hires_clips(host, embedded, report):
    ours, theirs = (one.clip(frames=3, **HIRES, **PROMPT).pixels for one in (embedded, host))
    check_alike(report, "hires clip", ours, theirs)


def test_infotexts(host, embedded):
    fields = {"steps": 3, **PROMPT}
    ours, theirs = (read_parameters(one.clip(**fields).info["infotexts"][0]) for one in (embedded, host))
    # The harness turns hashing off; noise from the CPU is the embedded host's rule, A1111's only without a card.
    differing = {"Model hash", "RNG", "Version"}
    assert [pair for pair in ours.items() if pair[0] not in differing] == [
        pair for pair in theirs.items() if pair[0] not in differing
    ]
