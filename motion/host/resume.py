"""The field `resume`: where a request's recorded UNet calls are, and which request they belong to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from modules import devices

from motion.injection.call_record import CallRecord, digest_of

FOLDER_PREFIX = "unfinished-"


def clip_record(p: Any, folder: Path, infotext: str, files: list[Path]) -> CallRecord:
    """The record of the clip that is sampled next; says so where only those of other requests are there.

    A request is told by all that the infotext says, all arguments of scripts, the pictures that it starts from, and
    the weight files. Whether the latents are the same as well, is seen call by call.

    Args:
        p: the host's processing object, its prompts and seeds set.
        folder: output folder of the clips.
        infotext: of the clip's first frame.
        files: weight files beside the checkpoint.
    """
    path = folder / f"{FOLDER_PREFIX}{_fingerprint(p, infotext, files)}"
    others = sorted(folder.glob(f"{FOLDER_PREFIX}*")) if folder.is_dir() else []
    if path in others:
        p.comment(f"Motion: resumed from {path}.")
    elif others:
        p.comment(
            f"Motion: begun anew, since the {len(others)} unfinished run(s) in {folder} belong to other requests. To "
            "resume one, set everything as it was, the seed too; or remove the folder."
        )

    def say(problem: str) -> None:
        p.comment(f"Motion: {problem}")

    return CallRecord(path, say)


def _fingerprint(p: Any, infotext: str, files: list[Path]) -> str:
    status = [(str(file.resolve()), os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    parts = (
        infotext,
        list(map(str, p.all_negative_prompts)),
        list(map(int, p.seeds)),
        list(map(int, p.subseeds)) if p.subseed_strength else None,  # else web UIs draw them anew, and for nothing
        _plain(list(p.script_args or ())),
        list(getattr(p, "init_images", None) or ()),
        getattr(p, "image_mask", None),
        status,
        (torch.__version__, str(devices.device), str(devices.dtype)),
    )
    return hashlib.blake2b(digest_of(parts).encode(), digest_size=8).hexdigest()


def _plain(value: Any, depth: int = 4) -> Any:
    """Arguments of scripts as lists, dicts and plain values, objects by their attributes."""
    if depth and isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    is_plain = value is None or isinstance(value, bool | int | float | str | bytes | torch.Tensor)
    if depth and not is_plain and not hasattr(value, "__array_interface__") and hasattr(value, "__dict__"):
        return [type(value).__qualname__, _plain(vars(value), depth - 1)]
    return value
