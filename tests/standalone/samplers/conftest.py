from __future__ import annotations

import pytest

from motion.models.precision import choose_precision
from motion.standalone import devices, namespace


@pytest.fixture
def host(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path)]) as state:
        devices.configure(choose_precision("fp32", device="cpu"))
        yield state
