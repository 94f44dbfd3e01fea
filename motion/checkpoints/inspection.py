"""What one weight file is, in words and figures, whether or not it can be used here."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from motion.checkpoints.domain_adapter_file import domain_adapter_layers
from motion.checkpoints.file_formats import FILE_FORMATS, recognise
from motion.checkpoints.format_types import AnyFormat, CustomMotion, FileFormat, Kind, MotionFormat, Shapes
from motion.checkpoints.low_rank import layer_shapes, split_role
from motion.checkpoints.motion_families import FAMILIES_WITH_MIDDLE, MOTION_FAMILIES
from motion.checkpoints.motion_file import MotionHeader, read_motion, refuse_as_motion
from motion.checkpoints.motion_lora_base import UnknownBaseError, changes_middle, read_base
from motion.checkpoints.motion_lora_file import motion_lora_layers
from motion.checkpoints.svd_file import derive_svd_config
from motion.checkpoints.weight_file import read_header
from motion.errors import CheckpointError

_GUESS = " (a guess by the file's name; its content fits others too)"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Inspection:
    """Report on a weight file.

    Attributes:
        path: the file.
        size_bytes: size of the file.
        kind: what such a file is for.
        title: what it is, with its article.
        family: id of a motion module's family; None for everything else.
        family_title: its name for people.
        family_is_a_guess: the content leaves other families possible; the file's name was asked.
        base: the Stable Diffusion family it belongs to, "sd15" or "sdxl"; None where none or not known.
        base_unknown: why a motion LoRA's content can't tell its base; None for everything else.
        made_for: ids of the families that a motion LoRA was made for, where its content tells; a module of another
            family of its base takes it too, less the parts that it has no layers for.
        num_frames_trained: frames of a clip in the training of a motion module, the window to work in, or of Stable
            Video Diffusion.
        max_frames: rows of its position table, the longest clip without windows.
        widths: channels per down level.
        parameters: learned numbers in the file; position tables don't count.
        dtype: type of most tensors, such as "float16".
        lora_rank: rank of the low-rank matrices of a LoRA.
        usable: it can be used as what it is for.
        reason: why it can't, and what to do; None for a usable file.
    """

    path: str
    size_bytes: int
    kind: Kind
    title: str
    family: str | None = None
    family_title: str | None = None
    family_is_a_guess: bool = False
    base: str | None = None
    base_unknown: str | None = None
    made_for: tuple[str, ...] = ()
    num_frames_trained: int | None = None
    max_frames: int | None = None
    widths: tuple[int, ...] = ()
    parameters: int | None = None
    dtype: str | None = None
    lora_rank: int | None = None
    usable: bool = False
    reason: str | None = None


def inspect_file(
    path: str | Path,
    *,
    family: str | None = None,
    formats: Sequence[AnyFormat] = FILE_FORMATS,
) -> Inspection:
    """Report on a weight file, from its keys, shapes and types; no tensor data is read and nothing in it is run.

    A damaged or hostile file gives a report with `usable` false; only a path without a file is an error.

    Args:
        path: the file.
        family: id of the family to take a motion module for; None lets its content decide, and its name where content
            can't.
        formats: the formats to choose from.

    Raises:
        CheckpointError: there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(path, "There is no such file.", "Check the path, or refresh the list.")
    size = path.stat().st_size
    try:
        header = read_header(path)
    except CheckpointError as error:
        return Inspection(str(path), size, "unknown", "an unreadable file", reason=_explain(error))
    shapes = {key: shape for key, (shape, _) in header.items()}
    common = _Common(path, size, _main_dtype([dtype for _, dtype in header.values()]), shapes)
    found = recognise(shapes, formats)
    if not isinstance(found, MotionFormat | CustomMotion):
        return _report_other(common, found)
    try:
        return _report_motion(common, read_motion(shapes, path, family=family, formats=formats))
    except CheckpointError as error:
        return common.report("motion_module", found.title, reason=_explain(error))


def describe(report: Inspection) -> str:
    """A report in lines of text for people; characters that a terminal would act on are left out."""
    facts = {
        "file": report.path,
        "what": report.title,
        "kind": report.kind,
        "family": report.family and f"{report.family_title} [{report.family}]" + _GUESS * report.family_is_a_guess,
        "base model": report.base or (report.base_unknown and f"not known. {report.base_unknown}"),
        "made for": " or ".join(MOTION_FAMILIES[family].title for family in report.made_for),
        "trained on": report.num_frames_trained and f"{report.num_frames_trained} frames",
        "longest clip": report.max_frames and f"{report.max_frames} frames without windows",
        "widths": ", ".join(map(str, report.widths)),
        "rank": report.lora_rank,
        "parameters": report.parameters is not None and f"{report.parameters:,}",
        "type": report.dtype,
        "size": f"{report.size_bytes:,} bytes",
        "usable": "yes" if report.usable else f"no. {report.reason}",
    }
    lines = (f"{name + ':':<14}{value}" for name, value in facts.items() if value)
    return "\n".join("".join(letter for letter in line if letter.isprintable()) for line in lines)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        CheckpointError: the file can't be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise CheckpointError(path, f"The file can't be read ({error}).", "Check its permissions.") from error
    return digest.hexdigest()


@dataclass(frozen=True)
class _Common:
    """What is reported of every readable file."""

    path: Path
    size: int
    dtype: str | None
    shapes: Shapes

    def report(self, kind: Kind, title: str, **fields: Any) -> Inspection:
        return Inspection(
            path=str(self.path),
            size_bytes=self.size,
            kind=kind,
            title=title,
            parameters=_count_parameters(self.shapes),
            dtype=self.dtype,
            lora_rank=_find_rank(self.shapes) if "lora" in kind or kind == "domain_adapter" else None,
            **fields,
        )


def _report_other(common: _Common, found: FileFormat | None) -> Inspection:
    if found is None or not found.usable:
        reason = _explain(refuse_as_motion(found, common.shapes, common.path))
        kind = "unknown" if found is None else found.kind
        title = "a file of an unknown kind" if found is None else found.title
        return common.report(kind, title, base=found and found.base, reason=reason)
    try:
        facts = _read_svd(common) if found.kind == "svd" else _read_low_rank(common, found)
    except CheckpointError as error:
        return common.report(found.kind, found.title, base=found.base, reason=_explain(error))
    return common.report(found.kind, found.title, usable=True, **facts)


def _read_low_rank(common: _Common, found: FileFormat) -> dict[str, Any]:
    """Fields of the report on a domain adapter or a motion LoRA.

    Raises:
        CheckpointError: loading it would fail.
    """
    if found.kind == "domain_adapter":
        domain_adapter_layers(common.shapes, common.path)
        return {"base": found.base}
    layers = layer_shapes(common.shapes, motion_lora_layers(common.shapes, common.path))
    try:
        base = read_base(layers.items())
    except UnknownBaseError as error:
        return {"base_unknown": str(error)}
    return {"base": base, "made_for": FAMILIES_WITH_MIDDLE if changes_middle(layers) else ()}


def _read_svd(common: _Common) -> dict[str, Any]:
    """Fields of the report on Stable Video Diffusion.

    Raises:
        CheckpointError: loading it would fail.
    """
    config = derive_svd_config(common.shapes, common.path)
    widths = tuple(factor * config.unet.model_channels for factor in config.unet.channel_mult)
    return {"num_frames_trained": config.num_frames, "widths": widths}


def _report_motion(common: _Common, header: MotionHeader) -> Inspection:
    family = header.family
    return common.report(
        "motion_module",
        header.format.title,
        family=family.id,
        family_title=family.title,
        family_is_a_guess=header.family_is_a_guess,
        base=family.base,
        num_frames_trained=family.trained_window(header.config.max_length),
        max_frames=header.config.max_length,
        widths=header.widths,
        usable=True,
    )


def _explain(error: CheckpointError) -> str:
    return f"{error.reason} {error.remedy}"


def _count_parameters(shapes: Shapes) -> int:
    tables = (".pe", ".positional_encoding", ".position_ids")
    return sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(tables))


def _main_dtype(dtypes: Iterable[torch.dtype]) -> str | None:
    counts = Counter(str(dtype).removeprefix("torch.") for dtype in dtypes)
    return counts.most_common(1)[0][0] if counts else None


def _find_rank(shapes: Shapes) -> int | None:
    """The most common rank of a file's pairs."""
    roles = ((split_role(key), shape) for key, shape in shapes.items())
    ranks = Counter(shape[0] for role, shape in roles if role is not None and role[1] == "down" and shape)
    return ranks.most_common(1)[0][0] if ranks else None
