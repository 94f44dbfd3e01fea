"""Memory that loading a weight file takes: `python -m benchmarks.load_memory [--megabytes 512]`.

For each kind of file a fresh process loads one into a network, while a thread reads the process's anonymous memory
(`RssAnon` of /proc/self/status, so Linux only). The ratio is the rise of its peak over the size of the tensors.
Mapped file pages do not count: the system drops them when it needs memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from motion.checkpoints.loading import load_into
from motion.checkpoints.weight_file import open_weights

WIDTH = 1024
FILE_KINDS = ("safetensors", "archive", "old pickle")
BOUNDS = {"safetensors": 1.15, "archive": 1.15, "old pickle": 2.2}
_INTERVAL_SECONDS = 0.001


def build_network(num_layers: int) -> nn.Module:
    """A stack of square linear layers without memory."""
    with torch.device("meta"):
        return nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(num_layers))


def write_file(path: Path, kind: str, num_bytes: int, dtype: torch.dtype) -> int:
    """Write a file of about `num_bytes` of tensors; how many layers it holds."""
    num_layers = max(1, num_bytes // (WIDTH * (WIDTH + 1) * dtype.itemsize))
    shapes = {key: value.shape for key, value in build_network(num_layers).state_dict().items()}
    tensors = {key: torch.full(shape, 0.5, dtype=dtype) for key, shape in shapes.items()}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "archive")
    return num_layers


def read_anonymous_bytes() -> int:
    """Anonymous memory of this process that is in RAM now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon; this benchmark needs Linux 4.5.")


class PeakReader:
    """Context in which a thread notes the highest anonymous memory of this process."""

    def __enter__(self) -> PeakReader:
        self.start_bytes = self.peak_bytes = read_anonymous_bytes()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, read_anonymous_bytes())

    def _read(self) -> None:
        while not self._stopped.wait(_INTERVAL_SECONDS):
            self.peak_bytes = max(self.peak_bytes, read_anonymous_bytes())


def load_file(path: Path, num_layers: int) -> float:
    """Load a file in its own dtype here; rise of the peak over the size of its tensors."""
    network = build_network(num_layers)
    with PeakReader() as reader, open_weights(path) as file:
        load_into(network, file, device=torch.device("cpu"), dtype=None, path=path)
    size = sum(parameter.nbytes for parameter in network.parameters())
    return (reader.peak_bytes - reader.start_bytes) / size


def measure(kind: str, num_bytes: int, dtype: torch.dtype, folder: Path) -> float:
    """The ratio for a new file of `kind`, loaded in a process of its own."""
    path = folder / ("weights.safetensors" if kind == "safetensors" else "weights.ckpt")
    num_layers = write_file(path, kind, num_bytes, dtype)
    command = [sys.executable, "-m", "benchmarks.load_memory", "--load", str(path), "--layers", str(num_layers)]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    path.unlink()
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    return float(json.loads(answer.stdout.splitlines()[-1]))


def _load_here(path: Path, num_layers: int) -> float:
    # What the libraries allocate once, at the first file, is not the file's.
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / path.name
        for kind in FILE_KINDS:
            load_file(small, write_file(small, kind, 1, torch.float32))
    return load_file(path, num_layers)


def main() -> None:
    """Print the ratio for each kind of file and dtype."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=512, help="size of the files")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.load:
        print(json.dumps(_load_here(arguments.load, arguments.layers)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in FILE_KINDS:
            for dtype in (torch.float32, torch.float16):
                ratio = measure(kind, arguments.megabytes * 2**20, dtype, Path(folder))
                print(f"{kind:12} {dtype!s:14} peak / size = {ratio:.3f} (at most {BOUNDS[kind]})")


if __name__ == "__main__":
    main()
