"""install.py as a web UI and as a person runs it: in copies of the repository's root, with real pip and no network.

Packages are tiny wheels or bare metadata directories that the tests write, so nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST_VERSIONS = {"av": "12.0.0", "einops": "0.4.1", "safetensors": "0.4.2", "Pillow": "9.5.0"}

PYPROJECT = """
[project]
requires-python = ">=3.10,<3.13"
dependencies = ["av>=12"]
[project.optional-dependencies]
standalone = ["torch==2.13.0", "gradio==4.40.0"]
dev = ["pytest>=8"]
"""
ECHO = "import sys, os; print('RAN', sys.argv[1:], os.getcwd())\n"


def without_settings() -> dict[str, str]:
    """The environment without what would steer pip or Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "CI"))}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}


def run_install(
    folder: Path, *arguments: str, python: str | Path = sys.executable, cwd: Path | None = None, **env: str
):
    return subprocess.run(
        [str(python), str(folder / "install.py"), *arguments],
        env={**without_settings(), **env},
        cwd=cwd or folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def steps_in(output: str) -> list[str]:
    """Numbers of the set-up steps that were announced; a slow machine prints signs of life between them."""
    return re.findall(r"^\[\d/\d\]", output, re.MULTILINE)


def copy_of_root(folder: Path, pyproject: str | None = None) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "install.py", folder)
    if pyproject is None:
        shutil.copy(ROOT / "pyproject.toml", folder)
    else:
        (folder / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    return folder


# --- started by a web UI ---


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python that has no packages at all, not even pip."""
    folder = tmp_path_factory.mktemp("host") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture
def host_packages(tmp_path):
    """A folder for PYTHONPATH like a web UI's packages: metadata, and a pip that records its arguments."""
    folder = tmp_path / "site"
    for name, version in HOST_VERSIONS.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "pip").mkdir()
    (folder / "pip" / "__init__.py").touch()
    (folder / "pip" / "__main__.py").write_text(
        f"import json, sys\nopen({str(tmp_path / 'calls')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    if sys.version_info < (3, 11):
        import pip._vendor.tomli

        shutil.copytree(Path(pip._vendor.tomli.__file__).parent, folder / "pip" / "_vendor" / "tomli")
    return folder


def calls_of_pip(host_packages: Path) -> list[list[str]]:
    calls = host_packages.parent / "calls"
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def test_host_start_is_silent_when_nothing_is_missing(bare_python, host_packages):
    done = run_install(ROOT, python=bare_python, PYTHONPATH=str(host_packages), cwd=host_packages)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert calls_of_pip(host_packages) == []


@pytest.mark.parametrize("av", [None, "11.9.9", "9"])
def test_host_start_installs_exactly_what_is_missing_and_nothing_beside_it(bare_python, host_packages, av):
    shutil.rmtree(host_packages / "av-12.0.0.dist-info")
    if av:
        (host_packages / f"av-{av}.dist-info").mkdir()
        (host_packages / f"av-{av}.dist-info" / "METADATA").write_text(f"Name: av\nVersion: {av}\n")
    done = run_install(ROOT, python=bare_python, PYTHONPATH=str(host_packages))
    assert (done.returncode, done.stdout) == (0, "Motion: installed av>=12.\n")
    [call] = calls_of_pip(host_packages)
    assert call[0] == "install"
    assert "--no-deps" in call
    assert [argument for argument in call[1:] if not argument.startswith("-")] == ["av>=12"]


def test_host_start_never_installs_a_package_of_the_host(tmp_path, bare_python, host_packages):
    folder = copy_of_root(tmp_path / "ext", PYPROJECT.replace('["av>=12"]', '["torch>=2.6", "Gradio==4.40.0"]'))
    done = run_install(folder, python=bare_python, PYTHONPATH=str(host_packages))
    assert done.returncode == 0
    assert re.findall(r"did not install (\S+):", done.stdout) == ["torch>=2.6", "Gradio==4.40.0"]
    assert calls_of_pip(host_packages) == []


def test_host_start_survives_pip_that_finds_nothing(tmp_path):
    folder = copy_of_root(tmp_path / "ext", PYPROJECT.replace("av>=12", "av>=9999"))
    done = run_install(folder)
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    assert line.startswith(
        "Motion: could not install av>=9999: No matching distribution found for av>=9999. MP4 output is"
    )


def test_host_start_says_that_it_is_offline(tmp_path):
    folder = copy_of_root(tmp_path / "ext", PYPROJECT.replace("av>=12", "av>=9999"))
    nowhere = "http://127.0.0.1:9/simple"
    done = run_install(folder, PIP_NO_INDEX="0", PIP_INDEX_URL=nowhere)
    assert done.returncode == 0
    [line] = done.stdout.splitlines()
    assert "could not install av>=9999: the package index can't be reached. MP4 output is off until it is there" in line


def test_host_start_without_pip_says_so(bare_python):
    done = run_install(ROOT, python=bare_python)
    assert done.returncode == 0
    assert done.stdout.count("\n") == (4 if sys.version_info >= (3, 11) else 1)
    assert "No module named" in done.stdout


def test_host_start_survives_a_broken_pyproject(tmp_path):
    done = run_install(copy_of_root(tmp_path / "ext", "[project"))
    assert done.returncode == 0
    assert done.stdout.startswith("Motion: could not check its packages: TOMLDecodeError")


# --- commands ---


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    for name, version in {"av": "12.1", "torch": "2.13.0", "gradio": "4.40.0"}.items():
        write_wheel(folder, name, version, {f"{name}/__init__.py": ""})
    write_wheel(folder, "torch", "2.5.1", {"torch/__init__.py": ""})
    write_wheel(folder, "pytest", "8.1", {"pytest/__init__.py": "", "pytest/__main__.py": ECHO})
    return folder


@pytest.fixture(scope="module")
def clone_with_venv(tmp_path_factory, wheels):
    """A clone, in a folder with a space, whose `demo` failed offline and then ran, and what both printed."""
    folder = copy_of_root(tmp_path_factory.mktemp("clones") / "a clone", PYPROJECT)
    (folder / "motion").mkdir()
    (folder / "motion" / "__init__.py").touch()
    (folder / "motion" / "__main__.py").write_text(ECHO)
    failed = run_install(folder, "demo")
    done = run_install(folder, "demo", "--out", "x y", "a cat", PIP_FIND_LINKS=wheels.as_uri(), cwd=wheels)
    return folder, failed, done


@pytest.fixture
def clone(tmp_path, clone_with_venv):
    folder = tmp_path / "copy of clone"
    shutil.copytree(clone_with_venv[0], folder, symlinks=True)
    return folder


def test_a_set_up_that_fails_says_why(clone_with_venv):
    _, failed, _ = clone_with_venv
    assert failed.returncode == 1
    assert steps_in(failed.stdout) == ["[1/4]", "[2/4]", "[3/4]"]
    assert "failed, No matching distribution found for torch==2.13.0. Check the connection, then run" in failed.stderr


def test_the_next_demo_goes_on_from_there_and_runs_where_it_was_called(clone_with_venv, wheels):
    *_, done = clone_with_venv
    assert done.returncode == 0, done.stderr
    assert steps_in(done.stdout) == ["[1/2]", "[2/2]"]
    assert done.stdout.splitlines()[-1] == f"RAN ['demo', '--out', 'x y', 'a cat'] {wheels}"


def test_second_demo_does_no_set_up_work(clone):
    done = run_install(clone, "demo")
    assert (done.returncode, done.stdout) == (0, f"RAN ['demo'] {clone}\n"), done.stderr


def test_test_adds_what_it_needs_and_runs_in_the_root(clone, wheels):
    done = run_install(clone, "test", "-k", "a b", cwd=wheels, PIP_FIND_LINKS=wheels.as_uri(), PATH="")
    assert done.returncode == 0, done.stderr
    assert steps_in(done.stdout) == ["[1/1]"]
    assert done.stdout.splitlines()[-1] == f"RAN ['-n', 'auto', '--dist', 'loadfile', '-k', 'a b'] {clone}"
    assert run_install(clone, "demo").stdout == f"RAN ['demo'] {clone}\n"  # all that it needs is among them


def test_a_package_that_was_removed_is_installed_again(clone, wheels):
    [info] = clone.glob(".venv/**/gradio-4.40.0.dist-info")
    shutil.rmtree(info)
    done = run_install(clone, "demo", PIP_FIND_LINKS=wheels.as_uri())
    assert done.returncode == 0, done.stderr
    assert steps_in(done.stdout) == ["[1/1]"]
    assert info.is_dir()


def first_lines_then_kill(folder: Path) -> list[str]:
    """The first two lines that `demo` prints; after the second it and the command it runs are killed."""
    command = [sys.executable, str(folder / "install.py"), "demo"]
    with subprocess.Popen(
        command, env=without_settings(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        lines = [process.stdout.readline(), process.stdout.readline()]
        os.killpg(process.pid, signal.SIGKILL)
    return lines


@pytest.mark.skipif(os.name == "nt", reason="kills a process group")
def test_a_python_that_went_away_and_a_set_up_that_was_killed_are_made_anew(clone):
    for python in clone.glob(".venv/bin/python*"):
        python.unlink()
    for _ in ("without its Python", "killed while it was made"):
        anew, first_step = first_lines_then_kill(clone)
        assert anew == "Motion: .venv is unfinished, or its Python does not do; making it anew.\n"
        assert first_step.startswith("[1/4]")


def test_a_torch_that_fits_is_kept(clone, wheels):
    (clone / ".venv" / "motion-setup.json").unlink()
    [info] = clone.glob(".venv/**/torch-2.13.0.dist-info")
    info.rename(info.with_name("torch-2.5.1.dist-info"))
    metadata = info.with_name("torch-2.5.1.dist-info") / "METADATA"
    metadata.write_text(metadata.read_text().replace("2.13.0", "2.5.1"))
    done = run_install(clone, "demo", PIP_FIND_LINKS=wheels.as_uri())
    assert done.returncode == 0, done.stderr
    assert metadata.exists()
    assert run_install(clone, "demo").stdout == f"RAN ['demo'] {clone}\n"


def test_unknown_command_prints_the_usage():
    done = run_install(ROOT, "dmeo")
    assert done.returncode == 2
    assert "unknown command 'dmeo'" in done.stderr
    assert "python install.py demo [--out DIR]" in done.stderr


def test_help():
    done = run_install(ROOT, "--help")
    assert done.returncode == 0
    assert "python install.py test" in done.stdout


def test_supported_pythons_are_those_of_pyproject():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    low, below = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', pyproject).groups()
    text = (ROOT / "install.py").read_text(encoding="utf-8")
    supported = ", ".join(f"(3, {minor})" for minor in range(int(low), int(below)))
    assert f"PYTHONS = ({supported})" in text
