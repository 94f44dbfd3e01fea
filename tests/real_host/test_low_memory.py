"""Web UIs that keep their weights elsewhere, and fetch them for each use, or in 8 bits: with servers of their own."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.contract.clips import difference, read_parameters
from tests.contract.server import HostStartError, Launch, make_data_dir, running

pytestmark = pytest.mark.real_host

MODULES = ("v1", "v2")


@pytest.fixture
def start(pytestconfig, host, tmp_path):
    """Starts another server with further flags, on the models and settings of the first."""

    def starting(*flags):
        data = make_data_dir(tmp_path / "data", with_extension=True, models=host.data_dir / "models")
        shutil.copy(host.data_dir / "config.json", data)
        folder, python, extra = (pytestconfig.getoption(f"--webui-{name}") for name in ("dir", "python", "args"))
        launch = Launch.webui(Path(folder).resolve(), python, [*shlex.split(extra), *flags])
        return running(launch, data, tmp_path / "host.log")

    return starting


@pytest.mark.parametrize("flag", ["--medvram", "--lowvram"])
def test_the_same_clips(host, start, flag):
    try:
        with start(flag) as other:
            if not other.get("/contract/offloading")["offloading"]:
                pytest.skip(f"{flag} has no effect in this host")
            for module in MODULES:
                clips = [one.clip(module=module, steps=3).pixels for one in (host, other)]
                assert np.array_equal(*clips)
    except HostStartError as error:
        if "unrecognized arguments" in str(error):
            pytest.skip(f"this host has no {flag}")
        raise


def test_a_unet_in_8_bits_and_back(host, start, record_property):
    """Clips only: A1111 leaves the schedule of stills rounded to 16 bits after the option has been on once."""
    if "fp8_storage" not in host.get("/sdapi/v1/options"):
        pytest.skip("this host has no option fp8_storage")
    with start() as other:
        before, still = other.clip(), other.txt2img(batch_size=4)
        assert other.post("/sdapi/v1/options", {"fp8_storage": "Enable"}).status == 200
        narrow = other.clip()
        if "FP8 weight" not in read_parameters(narrow.info["infotexts"][0]):
            pytest.skip("the option fp8_storage has no effect in this host")
        assert len(narrow.mp4s) == 1
        batch = other.txt2img(batch_size=4).pixels
        assert np.array_equal(other.clip(motion={"motion_scale": 0}).pixels, batch)
        moved = difference(narrow.pixels, before.pixels)
        record_property("mean 8-bit difference of a clip with fp8_storage", round(moved, 2))
        assert difference(narrow.pixels, batch) > 0
        assert 0 < moved < difference(before.pixels, still.pixels)
        assert other.post("/sdapi/v1/options", {"fp8_storage": "Disable"}).status == 200
        assert np.array_equal(other.clip().pixels, before.pixels)
