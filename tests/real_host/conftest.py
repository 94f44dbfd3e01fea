"""The web UI under test, and the report about it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import pytest

from tests.contract.report import Report, host_commit, host_versions
from tests.contract.server import Launch, make_data_dir, missing_packages, running

REPORT = pytest.StashKey[Report]()


@pytest.fixture(scope="session")
def report(pytestconfig, tmp_path_factory):
    """Written when the session ends, also when the host never came up."""
    given = pytestconfig.getoption("--report")
    report = Report(Path(given) if given else tmp_path_factory.mktemp("report") / "real-host.json")
    pytestconfig.stash[REPORT] = report
    return report


@pytest.fixture(scope="session")
def webui_launch(pytestconfig):
    """How to start the web UI of --webui-dir."""
    folder = Path(pytestconfig.getoption("--webui-dir")).resolve()
    return Launch.webui(
        folder, pytestconfig.getoption("--webui-python"), shlex.split(pytestconfig.getoption("--webui-args"))
    )


@pytest.fixture(scope="session")
def host(pytestconfig, webui_launch, report, tmp_path_factory):
    """The web UI of --webui-dir, running."""
    folder = Path(pytestconfig.getoption("--webui-dir")).resolve()
    python = pytestconfig.getoption("--webui-python")
    missing = missing_packages(python)
    if missing:
        pytest.fail(f"{python} lacks {', '.join(missing)}: run this repository's install.py with it first")
    commit = pytestconfig.getoption("--webui-commit") or host_commit(folder)
    report.host = {"folder": folder.name, "commit": commit, **host_versions(python)}
    report.figures["flags"] = " ".join(webui_launch.command[2:])
    small_decoder = pytestconfig.getoption("--small-decoder")
    data = tmp_path_factory.mktemp("webui") / "data"
    make_data_dir(data, with_extension=True, widths=webui_launch.widths, small_decoder=small_decoder)
    with running(webui_launch, data, report.path.with_suffix(".log")) as host:
        report.figures["seconds to start"] = round(host.start_seconds, 1)
        yield host
        report.figures["peak memory MiB"] = round((host.peak_memory_bytes() or 0) / 2**20)
    report.frames.update(host.kept_frames)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    result = yield
    report = item.config.stash.get(REPORT, None)
    if report is not None:
        name = item.nodeid.partition("::")[2].replace("::", " ")
        report.add_check(name, result.outcome, result.duration, result.longreprtext[-2000:])
        report.figures.update(result.user_properties)
    return result


def pytest_sessionfinish(session):
    report = session.config.stash.get(REPORT, None)
    if report is not None:
        report.host["finished"] = time.strftime("%Y-%m-%d %H:%M:%S")
        report.write()


def pytest_terminal_summary(terminalreporter, config):
    report = config.stash.get(REPORT, None)
    if report is not None:
        terminalreporter.write_line(f"report: {report.path}")
