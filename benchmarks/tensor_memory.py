"""How much memory the tensors of a computation take at its peak, counted tensor by tensor on the CPU."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakTensors(TorchDispatchMode):
    """Context that counts the bytes of all tensors made inside it, for as long as they live.

    Unlike the memory of the process, the count doesn't depend on the allocator and is the same in each run. What an
    operation takes for itself while it runs is not seen.

    Attributes:
        bytes: of the tensors that live now.
        peak_bytes: most that lived at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak_bytes = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage_key(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and _storage_key(value) not in given | self._counted:
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        self._counted.add(key)
        self.bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self._forget, key, num_bytes)

    def _forget(self, key: int, num_bytes: int) -> None:
        self._counted.discard(key)
        self.bytes -= num_bytes


def _storage_key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
