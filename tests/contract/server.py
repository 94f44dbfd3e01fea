"""Starts a host as its own process group on a free port, with a data folder made for the occasion, and ends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.contract.client import Host, HostUnreachableError
from tests.contract.weights import (
    CLIP_LAYERS,
    MOTION_MODULES,
    NARROW,
    WIDTHS,
    Widths,
    write_checkpoint,
    write_motion_module,
    write_other_files,
    write_small_decoder,
)

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).resolve().parent / "probe"
CHECKPOINT = "narrow"
READY_FILE = "contract-probe-ready"  # written by the probe
START_SECONDS = 240  # less than pytest's limit for one test, so that the host's log gets shown
STOP_SECONDS = 20

# The CPU in full precision: the same numbers on every machine, whatever card it has.
WEBUI_FLAGS = (
    *("--api", "--skip-prepare-environment", "--skip-install", "--skip-torch-cuda-test"),
    *("--skip-python-version-check", "--skip-version-check", "--use-cpu", "all", "--no-half", "--no-half-vae"),
    *("--precision", "full", "--no-download-sd-model", "--no-hashing", "--disable-console-progressbars"),
)
FORGE_FLAGS = ("--always-cpu", "--all-in-fp32")


class HostStartError(Exception):
    """A host did not come up; the message holds the end of its log."""


def make_data_dir(
    folder: Path,
    *,
    with_extension: bool,
    models: Path | None = None,
    checkpoint: str = CHECKPOINT,
    text_layers: int = CLIP_LAYERS,
    widths: Widths = NARROW,
    small_decoder: bool = False,
) -> Path:
    """A host's data folder with narrow weights, the probe and, for a web UI, a link to this repository.

    Args:
        folder: made if missing.
        with_extension: whether `extensions/` gets this repository; the embedded host brings it along.
        models: another data folder's models to share; otherwise they are made.
        checkpoint: name of the one that is chosen.
        text_layers: layers of the text encoder; web UIs know CLIP-L only, whole.
        widths: how narrow.
        small_decoder: have a web UI decode with TAESD, which it otherwise uses for previews.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if models is not None:
        _link_or_copy(models, folder / "models")
    else:
        _write_models(folder / "models", text_layers, widths)
    extensions = folder / "extensions"
    shutil.copytree(PROBE, extensions / "contract-probe", ignore=shutil.ignore_patterns("__pycache__"))
    if with_extension:
        _link_or_copy(ROOT, extensions / "motion")
    settings = {"sd_model_checkpoint": f"{checkpoint}.safetensors", "show_progress_type": "Approx cheap"}
    if small_decoder:
        write_small_decoder(folder / "models" / "VAE-taesd")
        settings["sd_vae_decode_method"] = "TAESD"
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def _write_models(folder: Path, text_layers: int, widths: Widths) -> None:
    write_checkpoint(folder / "Stable-diffusion", CHECKPOINT, text_layers=text_layers, widths=widths)
    for name, manifest in MOTION_MODULES.items():
        write_motion_module(folder / "motion" / f"{name}.safetensors", manifest, widths=widths)
    write_other_files(folder / "motion" / "wrong")  # sorted last, so that the page offers a good one first


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "outputs", "models"))


@dataclass(frozen=True)
class Launch:
    """How to start one host.

    Attributes:
        kind: "embedded", "a1111", or "forge" for Forge and reForge.
        command: everything before the port and the data folder.
        folder: working folder of the process.
        name: for reports.
    """

    kind: str
    command: tuple[str, ...]
    folder: Path
    name: str

    @classmethod
    def embedded(cls) -> Launch:
        """This repository's own host."""
        command = (sys.executable, "-m", "motion", "serve", "--precision", "fp32")
        return cls("embedded", command, ROOT, "embedded host")

    @classmethod
    def webui(cls, folder: Path, python: str, extra: Sequence[str] = ()) -> Launch:
        """A web UI that is installed in `folder` and runs with `python`."""
        kind, flags = ("forge", FORGE_FLAGS) if (folder / "modules_forge").is_dir() else ("a1111", ())
        return cls(kind, (python, "launch.py", *WEBUI_FLAGS, *flags, *extra), folder, folder.name)

    @property
    def widths(self) -> Widths:
        """Of the weights that this host loads and that are quickest to compute with."""
        return WIDTHS[self.kind]


@contextmanager
def running(launch: Launch, data_dir: Path, log: Path, *, start_seconds: float = START_SECONDS):
    """The host, answering, for the length of the block; its whole process group is gone afterwards.

    Raises:
        HostStartError: it ended or did not answer in time.
    """
    port = _free_port()
    address = ("--server-name", "127.0.0.1") if launch.kind != "embedded" else ("--host", "127.0.0.1")
    command = [*launch.command, *address, "--port", str(port), "--data-dir", str(data_dir)]
    log.parent.mkdir(parents=True, exist_ok=True)
    (data_dir / READY_FILE).unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=launch.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            host = Host(f"http://127.0.0.1:{port}", launch.kind, data_dir, process.pid, log)
            _wait_until_ready(host, process, began + start_seconds)
            host.start_seconds = time.monotonic() - began
            yield host
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    local = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
    quiet = {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "SD_WEBUI_RESTARTING": "1",
    }
    threads = {"OMP_NUM_THREADS": "1"}  # small pictures gain little from more, and a busy machine makes them wait
    return {**threads, **os.environ, **local, **quiet}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(host: Host, process: subprocess.Popen, deadline: float) -> None:
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HostStartError(f"The host ended with status {process.returncode}:\n{_tail(host.log)}")
        if _answers(host):
            return
        time.sleep(0.5)
    raise HostStartError(f"The host did not answer in time:\n{_tail(host.log)}")


def _answers(host: Host) -> bool:
    """True once the application is complete and the checkpoint loaded.

    No request is sent before the probe's file says that the application is complete: A1111 opens its port first and
    adds its middleware then, which fails, and ends the host, when a request has come in between.
    """
    if not (host.data_dir / READY_FILE).exists():
        return False
    try:
        return host.get("/contract/ready", timeout=START_SECONDS)["model"]
    except HostUnreachableError:
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])


def _end(process: subprocess.Popen) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, signum)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def missing_packages(python: str) -> list[str]:
    """Packages of ours that the web UI's environment lacks (its extensions' install.py isn't run by this harness)."""
    names = ("av", "einops", "safetensors", "PIL")
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n) is None])"
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return re.findall(r"'(\w+)'", result.stdout)
