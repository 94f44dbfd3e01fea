"""A web UI that keeps its weights elsewhere and fetches them for each use makes the same clips."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.contract.server import HostStartError, Launch, make_data_dir, running

pytestmark = pytest.mark.real_host

MODULES = ("v1", "v2")


@pytest.mark.parametrize("flag", ["--medvram", "--lowvram"])
def test_the_same_clips(pytestconfig, host, tmp_path, flag):
    data = make_data_dir(tmp_path / "data", with_extension=True, models=host.data_dir / "models")
    shutil.copy(host.data_dir / "config.json", data)
    folder, python, extra = (pytestconfig.getoption(f"--webui-{name}") for name in ("dir", "python", "args"))
    launch = Launch.webui(Path(folder).resolve(), python, [*shlex.split(extra), flag])
    try:
        with running(launch, data, tmp_path / "host.log") as other:
            if not other.get("/contract/offloading")["offloading"]:
                pytest.skip(f"{flag} has no effect in this host")
            for module in MODULES:
                clips = [one.clip(module=module, steps=3).pixels for one in (host, other)]
                assert np.array_equal(*clips)
    except HostStartError as error:
        if "unrecognized arguments" in str(error):
            pytest.skip(f"this host has no {flag}")
        raise
