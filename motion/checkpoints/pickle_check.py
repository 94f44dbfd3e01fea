"""Checks a PyTorch file's pickle before PyTorch reads it, by following its opcodes without building anything.

PyTorch's own restricted reader runs no code. What it does not see to, and this does: tuples nested so that hashing one
takes for ever, buffers of any size, tensors that claim more numbers than their record in the archive holds (a mapped
archive would fill the rest from its neighbour), compressed records.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motion.checkpoints.file_kind import DOWNLOAD_AGAIN, FileKind
from motion.errors import CheckpointError

# A whole SDXL checkpoint's pickle has under 1 MB.
_MAX_PICKLE_BYTES = 8 << 20
_MAX_TUPLE_ITEMS = 100_000
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # opens an old-style file, before three further pickles
_ITEM_BYTES = {
    "Double": 8, "Long": 8, "ComplexFloat": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2,
    "Char": 1, "Byte": 1, "Bool": 1, "Untyped": 1,
}  # fmt: skip
_FORBIDDEN = ("bytearray",)  # may be asked for any number of bytes


def check_pickle(path: Path, kind: FileKind) -> None:
    """Refuse a file whose pickle is out of bounds, or claims more than the file holds.

    Raises:
        CheckpointError: with the name of the tensor, where it is one's fault.
    """
    try:
        if kind is FileKind.TORCH_ZIP:
            with zipfile.ZipFile(path) as archive:
                _check_archive(path, archive)
        else:
            with path.open("rb") as file:
                stream = io.BytesIO(file.read(_MAX_PICKLE_BYTES))
            first = _follow(path, stream, {})
            for _ in range(3 if first == _MAGIC_NUMBER else 0):
                _follow(path, stream, {})
    except zipfile.BadZipFile as error:
        reason = f"The file is damaged or cut short: a PyTorch archive has its index at its end ({error})."
        raise CheckpointError(path, reason, DOWNLOAD_AGAIN) from error
    except (OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(path, f"The file is damaged or cut short ({error}).", DOWNLOAD_AGAIN) from error


def _check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    pickled = records.get("data.pkl")
    if pickled is None:
        reason = "This is a zip archive without a PyTorch model."
        raise CheckpointError(path, reason, "Unpack it, and choose the weight file inside.")
    if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
        reason = "The archive is compressed, which PyTorch archives never are."
        raise CheckpointError(path, reason, "Take the file as it was published, or a .safetensors version.")
    if pickled.file_size > _MAX_PICKLE_BYTES:
        raise _out_of_bounds(path)
    sizes = {name.removeprefix("data/"): info.file_size for name, info in records.items() if name.startswith("data/")}
    _follow(path, io.BytesIO(archive.read(pickled)), sizes)


def _out_of_bounds(path: Path) -> CheckpointError:
    reason = "The file's pickle is larger or more deeply nested than that of any model."
    return CheckpointError(path, reason, "Use a .safetensors version of it, from a source that you trust.")


@dataclass(frozen=True)
class _Tuple:
    """A tuple, and the number of items met when it is hashed: those of its items count as often as they occur."""

    items: tuple[Any, ...]
    num_items: int


@dataclass(frozen=True)
class _Storage:
    num_items: int
    is_typed: bool


_MARK = object()
_OPAQUE = object()


class _Stack:
    """The stack and memo of a pickle's machine, holding numbers, strings, tuples and storages; the rest is opaque."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop_to_mark(self) -> list[Any]:
        found = []
        while (value := self.values.pop()) is not _MARK:
            found.append(value)
        return found[::-1]

    def memo(self, opcode: str, index: int | None) -> bool:
        """Do a memo opcode; False for any other."""
        if opcode == "MEMOIZE":
            self._memo[len(self._memo)] = self.values[-1]
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT") and index is not None:
            self._memo[index] = self.values[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET") and index is not None:
            self.values.append(self._memo[index])
        else:
            return False
        return True

    def name(self) -> str:
        """The key that is waiting for the value under construction."""
        return next((value for value in reversed(self.values) if isinstance(value, str)), "?")[:200]


def _follow(path: Path, stream: io.BytesIO, records: Mapping[str, int]) -> Any:
    """Follow one pickle to its end and return its value, where that is no object."""
    stack = _Stack()
    opcode: Any
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if stack.memo(name, argument):
                continue
            if name.startswith(("TUPLE", "EMPTY_TUPLE")):
                _build_tuple(path, stack, name)
            elif name == "BINPERSID":
                stack.values[-1] = _open_storage(path, stack, records)
            elif name == "REDUCE":
                _check_view(path, stack)
            elif name in ("GLOBAL", "STACK_GLOBAL"):
                _push_global(path, stack, argument)
            elif name == "MARK":
                stack.values.append(_MARK)
            else:
                _do_other(stack, opcode, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(path, "The file is damaged or cut short (its pickle).", DOWNLOAD_AGAIN) from error
    return stack.values[-1] if stack.values else None


def _build_tuple(path: Path, stack: _Stack, opcode: str) -> None:
    if opcode == "TUPLE":
        items = stack.pop_to_mark()
    else:
        count = 0 if opcode == "EMPTY_TUPLE" else int(opcode[-1])
        items = [stack.values.pop() for _ in range(count)][::-1]
    num_items = 1 + sum(item.num_items if isinstance(item, _Tuple) else 1 for item in items)
    if num_items > _MAX_TUPLE_ITEMS:
        raise _out_of_bounds(path)
    stack.values.append(_Tuple(tuple(items), num_items))


def _push_global(path: Path, stack: _Stack, argument: str | None) -> None:
    """Push the name of a class or function; the old opcode has it as its argument, the new one on the stack."""
    if argument is None:
        attribute, module = stack.values.pop(), stack.values.pop()
        argument = f"{module} {attribute}"
    if argument.split(" ")[-1] in _FORBIDDEN:
        reason = f"The file contains code ({argument.replace(' ', '.')}); it was not run."
        raise CheckpointError(path, reason, "Use a .safetensors version of it, from a source that you trust.")
    stack.values.append(_Tuple((argument,), 1))


def _open_storage(path: Path, stack: _Stack, records: Mapping[str, int]) -> Any:
    """A tensor's storage, ("storage", type, record, device, number of items), checked against its record."""
    reference = stack.values.pop()
    stack.values.append(_OPAQUE)
    if not isinstance(reference, _Tuple) or len(reference.items) < 5:
        return _OPAQUE
    _, storage, record, _, num_items = reference.items[:5]
    type_name = storage.items[0].split(" ")[-1].removesuffix("Storage") if isinstance(storage, _Tuple) else ""
    if not isinstance(num_items, int) or not isinstance(record, str) or type_name not in _ITEM_BYTES:
        return _OPAQUE
    needed = num_items * _ITEM_BYTES[type_name]
    if records and records.get(record, 0) < needed:
        reason = f"`{stack.name()}` needs {needed} bytes, of which the file holds {records.get(record, 0)}."
        raise CheckpointError(path, reason, DOWNLOAD_AGAIN)
    return _Storage(num_items, type_name != "Untyped")


def _check_view(path: Path, stack: _Stack) -> None:
    """Call: where it builds a tensor (storage, offset, size, stride, …), the view must lie inside the storage."""
    arguments = stack.values.pop()
    stack.values[-1] = _OPAQUE
    items = arguments.items if isinstance(arguments, _Tuple) else ()
    if len(items) < 4 or not isinstance(items[0], _Storage) or not items[0].is_typed:
        return
    storage, offset, size, stride = items[:4]
    if isinstance(size, _Tuple) and isinstance(stride, _Tuple) and 0 not in size.items:
        last = offset + sum((count - 1) * step for count, step in zip(size.items, stride.items, strict=True))
        if not 0 <= offset <= last < storage.num_items:
            reason = f"`{stack.name()}` of shape {list(size.items)} claims more numbers than the file holds."
            raise CheckpointError(path, reason, DOWNLOAD_AGAIN)


def _do_other(stack: _Stack, opcode: Any, argument: Any) -> None:
    """Any other opcode, by what pickletools says of its effect on the stack."""
    before = [item.name for item in opcode.stack_before]
    if "mark" in before:
        stack.pop_to_mark()
        before = before[: before.index("mark")]
    kept = stack.values[len(stack.values) - len(before) :] if before else []
    del stack.values[len(stack.values) - len(before) :]
    if len(kept) < len(before):
        raise IndexError("pop from an empty stack")
    is_value = isinstance(argument, str | int) and not before
    stack.values.extend([argument if is_value else _OPAQUE] * len(opcode.stack_after))
    if opcode.name == "STOP":
        stack.values.extend(kept)
