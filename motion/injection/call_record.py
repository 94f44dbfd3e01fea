"""A UNet's answers on disk, so that a run that was cut off goes on from the call that it had reached.

Recorded is what the UNet gave, call by call, and not where the sampler stood. When the run is made again, the sampler
begins at its first step and gets the recorded answers in place of the UNet's, which takes no time. So whatever it
carries from step to step (earlier predictions, noise generators, Brownian trees) comes out the same to the bit, and so
do guidance, masks and what other extensions do between calls. An answer is taken only for the arguments, to the bit,
for which it was given.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from motion.injection.unet_windows import Forward, forward_replaced

logger = logging.getLogger(__name__)

_ANSWER = "answer"


class CallRecord:
    """The answers of one clip's UNet calls, in a folder of one file each.

    Args:
        folder: where they are, or will be; made with the first one.
        on_problem: told once, in a sentence, why nothing more can be recorded.
    """

    def __init__(self, folder: Path, on_problem: Callable[[str], None]) -> None:
        self._folder = folder
        self._on_problem = on_problem
        self._num_calls = 0
        self._is_replaying = True
        self._is_recording = True
        self.num_replayed = 0

    @contextmanager
    def applied(self, unet: nn.Module, on_replay: Callable[[], None]) -> Iterator[None]:
        """While in the context, calls of `unet` are answered from the record as far as it goes, and then recorded.

        Args:
            unet: the network, with all that changes its answers already in it.
            on_replay: called in each call that the UNet doesn't see.
        """

        def run(forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._run(forward, args, kwargs, on_replay)

        with forward_replaced(unet, run):
            yield

    def discard(self) -> None:
        """The clip is finished: remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(
        self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], on_replay: Callable[[], None]
    ) -> Any:
        path = self._folder / f"call_{self._num_calls:05d}.safetensors"
        self._num_calls += 1
        digest = digest_of((args, kwargs))
        x: Tensor = args[0] if args else kwargs["x"]
        if self._is_replaying:
            answer = _read(path, digest)
            if answer is not None:
                self.num_replayed += 1
                on_replay()
                return answer.to(x.device)
            self._is_replaying = False
        answer = forward(*args, **kwargs)
        if self._is_recording and isinstance(answer, Tensor):
            self._write(path, answer, digest)
        return answer

    def _write(self, path: Path, answer: Tensor, digest: str) -> None:
        """One file, whole or not at all, also when the machine loses its power."""
        unfinished = path.with_suffix(".unfinished")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({_ANSWER: answer.detach().cpu().contiguous()}, unfinished, metadata={"arguments": digest})
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except (OSError, SafetensorError) as error:
            self._is_recording = False
            self._on_problem(f"this clip can't be resumed any more, {path.parent} can't be written to: {error}.")


def _read(path: Path, digest: str) -> Tensor | None:
    """The recorded answer; None where there is none for these arguments, or it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata().get("arguments") != digest:
                logger.info("Motion: %s was recorded for other latents, going on without it", path)
                return None
            answer: Tensor = file.get_tensor(_ANSWER)
            return answer
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, AttributeError) as error:
        logger.warning("Motion: %s can't be read, going on without it: %s", path, error)
        return None


def digest_of(value: Any) -> str:
    """A hash of all tensors, numbers and texts in `value`, and of the lists and dicts in which they are."""
    found = hashlib.blake2b(digest_size=20)
    _add(found, value)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        found.update(f"T{value.dtype}{tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    elif isinstance(value, bytes | bytearray):
        found.update(b"B%d" % len(value) + bytes(value))
    elif isinstance(value, list | tuple):
        found.update(f"L{len(value)}".encode())
        for item in value:
            _add(found, item)
    elif isinstance(value, dict):
        found.update(f"D{len(value)}".encode())
        for key, item in value.items():
            _add(found, str(key))
            _add(found, item)
    elif value is None or isinstance(value, bool | int | float | str):
        found.update(f"{type(value).__name__}{value!r};".encode())
    elif hasattr(value, "__array_interface__"):  # numpy arrays and Pillow images
        interface = value.__array_interface__
        found.update(f"A{interface['typestr']}{interface['shape']}".encode())
        found.update(value.tobytes())
    else:
        found.update(f"O{type(value).__qualname__}".encode())
