"""Memory that loading a motion module takes in each storage format: `python -m benchmarks.module_memory [--file FILE]`.

For each format a fresh process loads the file as a web UI that computes in it does, while a thread reads the process's
anonymous memory, as in `benchmarks.load_memory`. Without FILE one of AnimateDiff v3's shapes is written, fp16
safetensors of 0.84 GB. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.load_memory import PeakReader, read_anonymous_bytes
from motion.checkpoints.motion_file import load_motion_model
from motion.models.motion_module import MotionModel, MotionModuleConfig

# name: type in which the host computes, and in which it stores large weights
STORAGE = {
    "fp16": (torch.float16, torch.float16),
    "bf16": (torch.bfloat16, torch.bfloat16),
    "fp32": (torch.float32, torch.float32),
    "fp8": (torch.float16, torch.float8_e4m3fn),
}
BOUND = 1.15
V3_WIDTH = 320
_LEVELS = (1, 2, 4, 4)


@dataclass(frozen=True)
class Figures:
    """What loading took.

    Attributes:
        loaded_bytes: size of the module's tensors.
        peak_bytes: peak of the anonymous memory above the start.
        left_bytes: anonymous memory above the start once the module is let go.
        seconds: duration of the loading.
    """

    loaded_bytes: int
    peak_bytes: int
    left_bytes: int
    seconds: float

    @property
    def ratio(self) -> float:
        """The peak in sizes of the loaded module."""
        return self.peak_bytes / self.loaded_bytes


def write_v3(path: Path, width: int = V3_WIDTH) -> Path:
    """Write an fp16 safetensors file with v3's keys and random weights, at `width` channels in the first level."""
    widths = tuple(width * factor for factor in _LEVELS)
    with torch.device("meta"):
        state = MotionModel(MotionModuleConfig(widths, widths[::-1], None, 32)).state_dict()
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: torch.empty(value.shape, dtype=torch.float16).uniform_(-0.02, 0.02, generator=generator)
        for key, value in state.items()
    }
    save_file(tensors, path)
    return path


def measure(path: Path, storage: str) -> Figures:
    """Load `path` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.module_memory", "--file", str(path), "--load", storage]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    return Figures(**json.loads(answer.stdout.splitlines()[-1]))


def _load_here(path: Path, storage: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:  # what the libraries allocate once, at the first file
        _load(write_v3(Path(folder) / "small.safetensors", 32), storage)
    gc.collect()
    began = time.perf_counter()
    with PeakReader() as reader:
        model = _load(path, storage)
    seconds = time.perf_counter() - began
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    del model
    left = read_anonymous_bytes() - reader.start_bytes
    return Figures(size, reader.peak_bytes - reader.start_bytes, left, seconds)


def _load(path: Path, storage: str) -> MotionModel:
    dtype, storage_dtype = STORAGE[storage]
    return load_motion_model(path, device=torch.device("cpu"), dtype=dtype, storage_dtype=storage_dtype)[0]


def main() -> None:
    """Print a line per format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="a motion module (default: one of AnimateDiff v3's shapes)")
    parser.add_argument("--load", choices=STORAGE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.load:
        print(json.dumps(asdict(_load_here(arguments.file, arguments.load))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or write_v3(Path(folder) / "v3.safetensors")
        for storage in STORAGE:
            found = measure(path, storage)
            print(
                f"{storage:5} loaded {found.loaded_bytes / 2**20:6.0f} MiB, peak / size = {found.ratio:.3f} (at most "
                f"{BOUND}), left after unloading {found.left_bytes / 2**20:5.1f} MiB, {found.seconds:.1f} s"
            )


if __name__ == "__main__":
    main()
