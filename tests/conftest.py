"""Options of the real-host tests, and CI's rule that browser tests run."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser):
    group = parser.getgroup("motion")
    group.addoption("--webui-dir", help="folder of an installed web UI, for tests/real_host")
    group.addoption("--webui-python", help="the Python of that web UI's environment")


def pytest_collection_modifyitems(config, items):
    missing = [name for name in ("--webui-dir", "--webui-python") if not config.getoption(name)]
    if missing:
        skip = pytest.mark.skip(reason=f"needs {' and '.join(missing)}")
        for item in items:
            if item.get_closest_marker("real_host"):
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("browser"):
        report.outcome = "failed"
        report.longrepr = f"a browser test may not be skipped in CI: {report.longrepr}"
    return report
