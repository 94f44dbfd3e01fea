"""Reading weight files safely: memory-mapped where the format allows it, and never running code from a file."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from motion.checkpoints.file_kind import DOWNLOAD_AGAIN, FileKind, detect_kind
from motion.checkpoints.pickle_check import check_pickle
from motion.checkpoints.safetensors_check import find_wrong_tensor
from motion.errors import CheckpointError

Shape = tuple[int, ...]

_logger = logging.getLogger(__name__)
_TRAINING_PREFIX = "module."
# Checkpoints trained with Lightning 1.x name this class as a key of their "callbacks"; nothing of it is wanted.
_LIGHTNING_CALLBACK = ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")


class WeightFile(Mapping[str, Tensor]):
    """The tensors of one open file by key; each is read when it is asked for.

    Tensors of a safetensors file and of a PyTorch archive are views of the mapped file: they cost no memory of their
    own, and must be copied by who keeps them.

    Attributes:
        path: the file.
        kind: how it stores its tensors.
        shapes: key -> shape, without touching tensor data.
    """

    def __init__(self, path: Path, kind: FileKind, tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> None:
        if not shapes:
            raise CheckpointError(path, "The file holds no tensors by name.", "Choose a file with a model's weights.")
        self.path = path
        self.kind = kind
        self.shapes = shapes
        self._tensors = tensors

    def __getitem__(self, key: str) -> Tensor:
        return self._tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def part(self, prefix: str) -> Mapping[str, Tensor]:
        """The tensors whose keys start with `prefix`, under their keys without it."""
        return LazyTensors(self.__getitem__, {key.removeprefix(prefix): key for key in self if key.startswith(prefix)})


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by key, each read when it is asked for.

    Args:
        read: name in the file -> tensor.
        names: key -> name in the file.
    """

    def __init__(self, read: Callable[[str], Tensor], names: Mapping[str, str]) -> None:
        self._read = read
        self._names = names

    def __getitem__(self, key: str) -> Tensor:
        return self._read(self._names[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def open_weights(path: str | Path) -> Iterator[WeightFile]:
    """Open a weight file of any kind.

    A wrapper `{"state_dict": …}` and a prefix "module." that every key has are taken off.

    Raises:
        CheckpointError: not a weight file, damaged, without tensors, or a pickle with code in it.
    """
    path = Path(path)
    kind = detect_kind(path)
    if kind is FileKind.SAFETENSORS:
        with _open_safetensors(path) as file:
            yield file
    else:
        yield _open_pickle(path, kind)


def read_shapes(path: str | Path) -> dict[str, Shape]:
    """Key -> shape of every tensor of a file, without reading tensor data.

    Raises:
        CheckpointError: as `open_weights`.
    """
    with _open_header(Path(path)) as file:
        return dict(file.shapes)


def read_header(path: str | Path) -> dict[str, tuple[Shape, torch.dtype]]:
    """Key -> shape and type of every tensor of a file, without reading tensor data.

    Raises:
        CheckpointError: as `open_weights`.
    """
    with _open_header(Path(path)) as file:
        return {key: (shape, file[key].dtype) for key, shape in file.shapes.items()}


def _open_header(path: Path) -> AbstractContextManager[WeightFile]:
    """Open a file for its keys, shapes and types only: its tensors may have no data."""
    kind = detect_kind(path)
    return nullcontext(_open_pickle(path, kind, "meta")) if kind is FileKind.TORCH_PICKLE else open_weights(path)


@contextmanager
def _open_safetensors(path: Path) -> Iterator[WeightFile]:
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        reason = f"The file is damaged or cut short ({find_wrong_tensor(path) or error})."
        raise CheckpointError(path, reason, DOWNLOAD_AGAIN) from error
    with file:
        names = _without_training_prefix(file.keys())
        shapes = {name: tuple(file.get_slice(key).get_shape()) for name, key in names.items()}
        yield WeightFile(path, FileKind.SAFETENSORS, LazyTensors(file.get_tensor, names), shapes)


def _open_pickle(path: Path, kind: FileKind, map_location: str = "cpu") -> WeightFile:
    # torch.load maps files given by path only, and takes a path that ends so for a safetensors file.
    mapped = kind is FileKind.TORCH_ZIP and path.suffix != ".safetensors"
    if not mapped and map_location == "cpu":
        _logger.info("%s can't be memory-mapped, being an %s: it is read into memory whole.", path, kind.value)
    content = _load_pickle(path, kind, mapped=mapped, map_location=map_location)
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = {key: value.detach() for key, value in _entries(content).items() if isinstance(value, Tensor)}
    names = _without_training_prefix(tensors)
    shapes = {name: tuple(tensors[key].shape) for name, key in names.items()}
    return WeightFile(path, kind, LazyTensors(tensors.__getitem__, names), shapes)


def _entries(content: Any) -> Mapping[Any, Any]:
    """The mapping that holds the tensors; several state dicts side by side (CameraCtrl's) become one with prefixes."""
    if not isinstance(content, Mapping):
        return {}
    if any(isinstance(value, Tensor) for value in content.values()):
        return content
    parts = {name: part for name, part in content.items() if isinstance(part, Mapping)}
    parts = {name: part for name, part in parts.items() if isinstance(name, str) and name.endswith("_state_dict")}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}


def _load_pickle(path: Path, kind: FileKind, *, mapped: bool, map_location: str) -> Any:
    """Content of a file that `torch.save` wrote; only tensors and plain containers are allowed in it."""
    check_pickle(path, kind)
    try:
        with _inert_globals():
            if mapped:
                return torch.load(str(path), map_location=map_location, weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location=map_location, weights_only=True)
    except (OSError, MemoryError) as error:
        raise CheckpointError(path, f"The file can't be read ({error}).", "Check its disk and free memory.") from error
    except pickle.UnpicklingError as error:
        raise _refuse_pickle(path, error) from error
    except Exception as error:
        # A damaged pickle is a random program for the unpickler: any exception can come out of it.
        summary = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(path, f"The file is damaged or cut short ({summary}).", DOWNLOAD_AGAIN) from error


def _refuse_pickle(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    message = str(error)
    found = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", message)
    if found is not None:
        reason = f"The file contains code ({found[1]}), which could do anything; it was not run."
    elif "Unsupported operand" in message:
        reason = "The file is a pickle that PyTorch did not write, and may contain code; it was not run."
    else:
        return CheckpointError(path, "The file is damaged or cut short.", DOWNLOAD_AGAIN)
    return CheckpointError(path, reason, "Use a .safetensors version of it, from a source that you trust.")


def _inert_globals() -> AbstractContextManager[Any]:
    """Lets the unpickler meet the one foreign class that public checkpoints name, as an empty stand-in."""
    safe_globals = getattr(torch.serialization, "safe_globals", None)  # torch 2.5
    if safe_globals is None:
        return nullcontext()
    module, name = _LIGHTNING_CALLBACK
    context: AbstractContextManager[Any] = safe_globals([type(name, (), {"__module__": module})])
    return context


def _without_training_prefix(keys: Any) -> dict[str, str]:
    """Key without the prefix that distributed training adds -> key in the file; in the file's order."""
    names = [key for key in keys if isinstance(key, str)]
    strip = all(key.startswith(_TRAINING_PREFIX) for key in names)
    return {key.removeprefix(_TRAINING_PREFIX) if strip else key: key for key in names}
