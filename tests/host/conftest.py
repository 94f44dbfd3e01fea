"""motion.host imports the web UI; here that is the embedded one."""

import pytest

from motion.standalone import namespace


@pytest.fixture(autouse=True)
def host(tmp_path):
    with namespace.installed(["--data-dir", str(tmp_path)]) as state:
        yield state
