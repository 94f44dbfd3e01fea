"""Installs what Motion needs, and runs the demo and the tests.

python install.py                                  what a web UI runs when it starts: install what its environment lacks
python install.py demo [--out DIR] [prompt ...]    make a clip with the small models that come along
python install.py test [pytest arguments]          run the tests

`demo` and `test` work in a virtual environment of their own, .venv beside this file, and make it when it is missing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "motion-setup.json"  # {"finished": bool, "requirements": [...]}
LOG = VENV / "motion-setup.log"  # output of the last step
PYTHONS = ((3, 10), (3, 11), (3, 12))
TORCH_FITS = ((2, 1), (3,))  # A1111's torch up to, not with, the next major version
PIP_OPTIONS = ("--disable-pip-version-check", "--no-input")

# The only packages that may be installed into a web UI's environment, and what is off without them.
HOST_PACKAGES = {
    "av": "MP4 output is off",
    "einops": "Motion is off",
    "safetensors": "Motion is off",
    "pillow": "Motion is off",
}

DESCRIBE = "--describe"  # how this file asks itself, run by .venv's Python, what is there
COMMANDS = {
    "demo": (("standalone",), ("-m", "motion", "demo")),
    "test": (("standalone", "dev"), ("-m", "pytest", "-n", "auto", "--dist", "loadfile")),
}


class SetupError(Exception):
    """The environment can't be set up; the message says why and what to do."""


class Requirement(NamedTuple):
    """One line of pyproject.toml's dependencies: `name>=version` or `name==version`."""

    name: str
    operator: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.version}"

    def is_met_by(self, installed: str | None) -> bool:
        """Whether version `installed` (None: not there) is enough. A torch that fits is kept, whatever the pin."""
        if not installed:
            return False
        found, wanted = release(installed), release(self.version)
        if self.name == "torch":
            return TORCH_FITS[0] <= found < TORCH_FITS[1]
        return found == wanted if self.operator == "==" else found >= wanted


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version without trailing zeros: "2.13.0+cpu" -> (2, 13)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(n) for n in re.sub(r"(\.0+)+$", "", numbers[0]).split(".")) if numbers else ()


def read_requirements(extras: Sequence[str] = ()) -> list[Requirement]:
    """pyproject.toml's dependencies, then those of the named extras."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from pip._vendor import tomli as tomllib  # what pip itself reads this file with
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    requirements = []
    for text in (text for texts in lists for text in texts):
        parts = re.fullmatch(r"([A-Za-z0-9._-]+)(>=|==)(\d[\w.]*)", text)
        if not parts:  # anything else would not mean here what it means to pip
            raise SetupError(f"pyproject.toml: expected name>=version or name==version, got {text!r}.")
        requirements.append(Requirement(*parts.groups()))
    return requirements


def reason_of_failure(output: str) -> str:
    """The line of pip's or apt's output that says why it failed."""
    if "NewConnectionError" in output or "NameResolutionError" in output or "ProxyError" in output:
        return "the package index can't be reached"
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it printed nothing"]
    marked = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("ERROR:", "E:"))]
    return (marked or lines)[-1].rstrip(".")


def installed_version(name: str) -> str | None:
    """Version of a distribution in the environment that runs this file, None when it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def install_into_host() -> int:
    """Install what is missing into the web UI's environment. Always 0: without us the web UI must start as well."""
    try:
        for requirement in read_requirements():
            if not requirement.is_met_by(installed_version(requirement.name)):
                print(f"Motion: {install_package(requirement)}")
    except Exception as error:
        # Anything at all: this process is the web UI's start, and a traceback here would look like the UI's fault.
        print(f"Motion: could not check its packages: {type(error).__name__}: {error}")
    return 0


def install_package(requirement: Requirement) -> str:
    """Install one package, alone, and say in one line how it went."""
    consequence = HOST_PACKAGES.get(requirement.name.lower())
    if consequence is None:
        return f"did not install {requirement}: only {', '.join(HOST_PACKAGES)} may be, the rest is the host's."
    # --no-deps: nothing that the host pins may change. Only binaries: a compiler run has no place in a UI's start.
    pip = [sys.executable, "-m", "pip", "install", *PIP_OPTIONS, "--no-deps", "--only-binary=:all:", "--retries=1"]
    try:
        done = subprocess.run(
            [*pip, "--timeout=15", str(requirement)], capture_output=True, text=True, errors="replace", timeout=900
        )
        if done.returncode == 0:
            return f"installed {requirement}."
        reason = reason_of_failure(done.stderr or done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    remedy = f'"{sys.executable}" -m pip install --no-deps "{requirement}"'
    return f"could not install {requirement}: {reason}. {consequence} until it is there; to try by hand: {remedy}"


def describe(names: Sequence[str]) -> str:
    """The environment that runs this file, as JSON: `python`, `has_pip`, and `versions` of distributions by name."""
    has_pip = importlib.util.find_spec("pip") is not None
    versions = {name: installed_version(name) for name in names}
    return json.dumps({"python": sys.version_info[:2], "has_pip": has_pip, "versions": versions})


def probe(requirements: Sequence[Requirement]) -> dict[str, Any] | None:
    """`describe` of .venv; None when its Python does not run."""
    command = [str(VENV_PYTHON), "-I", __file__, DESCRIBE, *(requirement.name for requirement in requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def read_stamp() -> dict[str, Any]:
    """What the last set-up wrote; empty where there was none."""
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def write_stamp(finished: bool, requirements: Sequence[Requirement]) -> None:
    """Record the state of .venv, whole or not at all."""
    VENV.mkdir(exist_ok=True)
    content = {"finished": finished, "requirements": [str(requirement) for requirement in requirements]}
    fresh = STAMP.with_suffix(".tmp")
    fresh.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(fresh, STAMP)


def is_ready(requirements: Sequence[Requirement]) -> bool:
    """Whether a finished set-up of these requirements is there, and nothing of them was removed since."""
    stamp = read_stamp()
    if not stamp.get("finished") or not {str(r) for r in requirements} <= set(stamp["requirements"]):
        return False
    found = probe(requirements)
    return found is not None and all(r.is_met_by(found["versions"][r.name]) for r in requirements)


class Step(NamedTuple):
    """One command of the set-up."""

    title: str
    command: Sequence[str]
    remedy: str


def run_steps(steps: Sequence[Step]) -> None:
    """Run steps in order, their output into the log; each is announced with its number and the time gone by."""
    start = time.monotonic()
    for number, step in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {time.monotonic() - start:3.0f} s  {step.title}", flush=True)
        with open(LOG, "w+b") as log:
            process = subprocess.Popen(step.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            while process.poll() is None:
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    print(f"      {time.monotonic() - start:3.0f} s  ...", flush=True)
            log.seek(0)
            output = log.read().decode("utf-8", "replace")
        if process.returncode:
            reason = reason_of_failure(output)
            raise SetupError(f"{step.title}: failed, {reason}. {step.remedy} Everything it said is in {LOG}.")
    print(f"      {time.monotonic() - start:3.0f} s  done", flush=True)


def planned_steps(requirements: Sequence[Requirement]) -> list[Step]:
    """What is left to do until .venv holds `requirements`."""
    base_python = getattr(sys, "_base_executable", None) or sys.executable  # outlives .venv where we run in it
    pip = [str(VENV_PYTHON), "-I", "-m", "pip", "install", *PIP_OPTIONS, "--no-compile", "--prefer-binary"]
    online = "Check the connection, then run the same command again."
    found = probe(requirements)
    steps = []
    if found is None:
        making = [base_python, "-m", "venv", "--without-pip", str(VENV)]
        steps.append(Step("a virtual environment in .venv", making, "Delete .venv, then run the same command again."))
    if found is None or not found["has_pip"]:
        adding = [str(VENV_PYTHON), "-I", "-m", "ensurepip", "--upgrade", "--default-pip"]
        steps.append(Step("pip", adding, "On Debian and Ubuntu, install the package python3-venv first."))
    versions: dict[str, str | None] = found["versions"] if found else {}
    torch = next((requirement for requirement in requirements if requirement.name == "torch"), None)
    if torch and torch.is_met_by(versions.get("torch")):
        torch = Requirement("torch", "==", str(versions["torch"]))  # so that nothing replaces it
    elif torch:
        steps.append(Step(f"torch {torch.version}, by far the largest part", [*pip, str(torch)], online))
    others = [str(requirement) for requirement in requirements if requirement.name != "torch"]
    everything = [*others, str(torch)] if torch else others
    steps.append(Step(f"{len(others)} packages and what they need", [*pip, *everything], online))
    return steps


def set_up(requirements: Sequence[Requirement]) -> None:
    """Make .venv, or mend it, or add to it, until it holds `requirements`."""
    found = probe(())
    runs = found is not None and tuple(found["python"]) in PYTHONS
    if VENV.exists() and not (runs and read_stamp().get("finished", True)):
        print("Motion: .venv is unfinished, or its Python does not do; making it anew.", flush=True)
        shutil.rmtree(VENV)
    # "Unfinished" is read again only after a kill: then a package may be half written, which pip does not see.
    write_stamp(False, requirements)
    try:
        run_steps(planned_steps(requirements))
    except SetupError:
        STAMP.unlink(missing_ok=True)
        raise
    write_stamp(True, requirements)


def install_browser() -> None:
    """Chromium for the browser tests, where we may and can: they are skipped, with the reason, where it is missing."""
    may_install = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get")
    if shutil.which("chromedriver") or not may_install:
        return
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "Acquire::Retries=3"]
    install = [*apt, "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]
    remedy = "Install chromium and chromium-driver to run the browser tests."
    try:
        run_steps([Step("package lists", [*apt, "update"], remedy), Step("Chromium", install, remedy)])
    except SetupError as error:
        print(f"Motion: {error}", flush=True)


def prepare(command: str) -> None:
    """Have everything that `command` needs in .venv; without set-up work where it is there."""
    requirements = read_requirements(COMMANDS[command][0])
    ready = is_ready(requirements)
    if not ready:
        set_up(requirements)
    if command == "test" and (not ready or os.environ.get("CI")):
        install_browser()


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the result is the exit status."""
    if not arguments:
        return install_into_host()
    command, *rest = arguments
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if command == DESCRIBE:
        print(describe(rest))
        return 0
    if command not in COMMANDS:
        print(f"Motion: unknown command {command!r}.\n\n{__doc__}", file=sys.stderr)
        return 2
    if sys.version_info[:2] not in PYTHONS:
        print(f"Motion: needs Python 3.10, 3.11 or 3.12; this is {sys.version.split()[0]}.", file=sys.stderr)
        return 1
    try:
        prepare(command)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiled nothing: what is imported is compiled once
        # The demo's paths are the caller's; pytest wants to start where its configuration is.
        cwd = ROOT if command == "test" else None
        return subprocess.call([str(VENV_PYTHON), *COMMANDS[command][1], *rest], cwd=cwd, env=environment)
    except (SetupError, OSError) as error:
        print(f"Motion: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Motion: stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
