"""Options of the real-host tests, what runs only when asked for, and CI's rule that browser tests run."""

from __future__ import annotations

import os

import pytest

# Read when torch loads. Networks here are too small to gain from threads, the tests run beside each other, and threads
# that spin while they wait make a busy machine several times slower. Hosts that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest.register_assert_rewrite("tests.contract")


def pytest_addoption(parser):
    group = parser.getgroup("motion")
    group.addoption("--webui-dir", help="folder of an installed web UI, for tests/real_host")
    group.addoption("--webui-python", help="the Python of that web UI's environment")
    group.addoption("--webui-args", default="", help="further command-line arguments for that web UI, in one string")
    group.addoption("--small-decoder", action="store_true", help="that web UI decodes with TAESD, many times as fast")
    group.addoption("--webui-commit", help="that web UI's commit for the report, where its folder is no git checkout")
    group.addoption("--report", help="JSON file for the report on that web UI (default: in pytest's temporary folder)")
    group.addoption("--thorough", action="store_true", help="run the whole contract on the embedded host too")


def pytest_collection_modifyitems(config, items):
    _leave_out_thorough(config, items)
    missing = [name for name in ("--webui-dir", "--webui-python") if not config.getoption(name)]
    if missing:
        skip = pytest.mark.skip(reason=f"needs {' and '.join(missing)}")
        for item in items:
            if item.get_closest_marker("real_host"):
                item.add_marker(skip)


def _leave_out_thorough(config, items):
    """A real host gets the whole contract; the embedded one its quick part, unless --thorough is given."""
    if config.getoption("--thorough"):
        return
    left_out = [i for i in items if i.get_closest_marker("thorough") and not i.get_closest_marker("real_host")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    needed = item.get_closest_marker("browser") and not item.get_closest_marker("real_host")
    if report.skipped and os.environ.get("CI") and needed:
        report.outcome = "failed"
        report.longrepr = f"a browser test may not be skipped in CI: {report.longrepr}"
    return report
