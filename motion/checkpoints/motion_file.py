"""Motion module files: which family one is, the shape of its network, and the network itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from motion.checkpoints.custom_file import make_custom_model, read_custom
from motion.checkpoints.file_formats import FILE_FORMATS, recognise
from motion.checkpoints.format_types import AnyFormat, CustomMotion, FileFormat, MotionFormat, MotionLayout, Shapes
from motion.checkpoints.loading import load_into
from motion.checkpoints.motion_families import MOTION_FAMILIES, MotionFamily, guess_family
from motion.checkpoints.motion_header import GET_ANOTHER, MotionHeader, check_shapes
from motion.checkpoints.weight_file import open_weights, read_shapes
from motion.errors import CheckpointError
from motion.models.cast_layers import is_narrow
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.temporal_transformer import TemporalTransformer, sinusoidal_table

__all__ = [
    "MOTION_FAMILIES",
    "MotionFamily",
    "MotionHeader",
    "inspect_motion_file",
    "load_motion_model",
    "read_motion",
    "refuse_as_motion",
]

_SITE = re.compile(
    r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.motion_modules\.(\d+)\.temporal_transformer\."
    r"(?:(norm|proj_in|proj_out)\.(?:weight|bias)|.*attention_blocks\.(\d+)\..*|.*)"
)
_TABLE = ".pos_encoder.pe"


def inspect_motion_file(
    path: str | Path, *, family: str | None = None, formats: Sequence[AnyFormat] = FILE_FORMATS
) -> tuple[MotionFamily, MotionModuleConfig]:
    """Family and shape of a motion module file, from its keys and shapes; no tensor data is read.

    Args:
        path: the file.
        family: id of the family to take it for; None lets its content decide, and its name where content can't.
        formats: the formats to choose from.

    Raises:
        CheckpointError: the file can't be read, is something else, lacks parts, or can't be of this family.
    """
    header = read_motion(read_shapes(path), path, family=family, formats=formats)
    return header.family, header.config


def load_motion_model(
    path: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    storage_dtype: torch.dtype | None = None,
    family: str | None = None,
    formats: Sequence[AnyFormat] = FILE_FORMATS,
) -> tuple[MotionModel, MotionFamily]:
    """The network of a motion module file, frozen, and its family.

    Args:
        path: the file.
        device: where the network goes.
        dtype: type in which it computes, and of its weights; None keeps the file's.
        storage_dtype: type of its large weights where it is another, such as `torch.float8_e4m3fn`. Modules from other
            packages have none of these but where they are made of `motion.models.cast_layers`.
        family: as in `inspect_motion_file`.
        formats: the formats to choose from.

    Raises:
        CheckpointError: the file can't be read, is something else, its tensors don't make up a motion module, or one
            of them holds a NaN or an infinity.
    """
    with open_weights(path) as file:
        header = read_motion(file.shapes, path, family=family, formats=formats)
        model = _make_model(header, file.shapes, path)
        tensors = _MotionTensors(file, header, path)
        load_into(model, tensors, device=device, dtype=dtype, storage_dtype=storage_dtype, path=path)
    return model, header.family


def read_motion(
    shapes: Shapes,
    path: str | Path,
    *,
    family: str | None = None,
    formats: Sequence[AnyFormat] = FILE_FORMATS,
) -> MotionHeader:
    """What the keys and shapes of a motion module file say.

    Args:
        shapes: key -> shape of the file.
        path: the file, for its name.
        family: as in `inspect_motion_file`.
        formats: the formats to choose from.

    Raises:
        CheckpointError: the file is something else, lacks parts, or can't be of this family.
    """
    found = recognise(shapes, formats)
    if isinstance(found, CustomMotion):
        return read_custom(found, shapes, path, family=family)
    if not isinstance(found, MotionFormat):
        raise refuse_as_motion(found, shapes, path)
    file_keys = found.rename(shapes)
    own_shapes = {key: shapes[name] for key, name in file_keys.items()}
    plan = _Plan.of(own_shapes)
    candidates = found.families(MotionLayout(len(plan.down), plan.mid is not None, plan.table_rows))
    if not candidates or not plan.is_whole():
        reason = f"Down levels {sorted(plan.down)} and up levels {sorted(plan.up)} of its motion modules" + (
            "" if plan.mid is None else " with a middle block"
        )
        raise CheckpointError(path, f"{reason} don't make the UNet of SD1.5 or SDXL.", GET_ANOTHER)
    chosen = guess_family(candidates, Path(path)) if family is None else _overriding(family, candidates, path)
    config = _configure(plan, chosen, path)
    expected = _expected_shapes(config)
    needed = [key for key in expected if plan.table_rows is not None or not key.endswith(_TABLE)]
    check_shapes(needed, expected, own_shapes, file_keys, path)
    is_a_guess = family is None and len(candidates) > 1
    return MotionHeader(found, chosen, is_a_guess, config, config.down_channels, tuple(expected), file_keys)


def _make_model(header: MotionHeader, shapes: Shapes, path: str | Path) -> MotionModel:
    """The network without values, on the meta device."""
    if isinstance(header.format, CustomMotion):
        return make_custom_model(header.format, {key: shapes[name] for key, name in header.file_keys.items()}, path)
    with torch.device("meta"):
        return MotionModel(header.config)


def refuse_as_motion(found: FileFormat | None, shapes: Shapes, path: str | Path) -> CheckpointError:
    """The error that says what a file is instead of a motion module, and what to do with it."""
    supported = ", ".join(family.title for family in MOTION_FAMILIES.values())
    choose = f"Choose a motion module of one of these families: {supported}."
    if found is None:
        keys = ", ".join(f"`{key[:80]}`" for key in list(shapes)[:3])
        return CheckpointError(path, f"This is no motion module; its tensors have names such as {keys}.", choose)
    return CheckpointError(path, f"This is {found.title}, {found.refusal}.", f"{found.remedy} {choose}".strip())


def _overriding(family: str, candidates: Sequence[str], path: str | Path) -> MotionFamily:
    base = MOTION_FAMILIES[candidates[0]].base
    fitting = [each.id for each in MOTION_FAMILIES.values() if each.base == base]
    if family not in fitting:
        reason = f"The family of this motion module must be one of {', '.join(fitting)}, got `{family}`."
        raise CheckpointError(path, reason, "Choose one of them, or leave the choice to the file's content.")
    return MOTION_FAMILIES[family]


@dataclass(frozen=True)
class _Plan:
    """Sizes of the network by what most tensors of a file say, so that a wrong one stands out and can be named."""

    down: Mapping[int, int]
    mid: int | None
    up: Mapping[int, int]
    num_attentions: int
    down_modules: int
    up_modules: int
    table_rows: int | None

    @classmethod
    def of(cls, shapes: Shapes) -> _Plan:
        widths: dict[tuple[str, int], Counter[int]] = {}
        modules: dict[str, set[str]] = {"down_blocks": set(), "up_blocks": set(), "mid_block": set()}
        attentions = set()
        for key, shape in shapes.items():
            if (match := _SITE.fullmatch(key)) is None:
                continue
            modules[match[1]].add(match[3])
            counts = widths.setdefault((match[1], int(match[2] or 0)), Counter())
            if match[4] and shape:
                counts[shape[0]] += 1
            if match[5]:
                attentions.add(match[5])
        width = {site: counts.most_common(1)[0][0] if counts else 0 for site, counts in widths.items()}
        rows = Counter(shape[1] for key, shape in shapes.items() if key.endswith(_TABLE) and len(shape) == 3)
        return cls(
            down={level: value for (part, level), value in width.items() if part == "down_blocks"},
            mid=width.get(("mid_block", 0)),
            up={level: value for (part, level), value in width.items() if part == "up_blocks"},
            num_attentions=len(attentions),
            down_modules=len(modules["down_blocks"]),
            up_modules=len(modules["up_blocks"]),
            table_rows=rows.most_common(1)[0][0] if rows else None,
        )

    def is_whole(self) -> bool:
        """True when down and up levels are numbered alike and without gaps."""
        return sorted(self.down) == sorted(self.up) == list(range(len(self.down)))


def _configure(plan: _Plan, family: MotionFamily, path: str | Path) -> MotionModuleConfig:
    try:
        return MotionModuleConfig(
            down_channels=tuple(plan.down[level] for level in sorted(plan.down)),
            up_channels=tuple(plan.up[level] for level in sorted(plan.up)),
            mid_channels=plan.mid,
            max_length=family.table_rows if plan.table_rows is None else plan.table_rows,
            num_attention_blocks=plan.num_attentions,
            down_modules=plan.down_modules,
            up_modules=plan.up_modules,
            motion_norm_over_frames=family.motion_norm_over_frames,
            unet_norm_over_frames=family.unet_norm_over_frames,
        )
    except ValueError as error:
        raise CheckpointError(path, str(error), "Choose another motion module.") from error


def _expected_shapes(config: MotionModuleConfig) -> Shapes:
    """Key -> shape of the network; quick enough for a folder of files, since each width is built only once."""
    middle = () if config.mid_channels is None else (config.mid_channels,)
    levels = [
        *((f"down_blocks.{level}", width, config.down_modules) for level, width in enumerate(config.down_channels)),
        *(("mid_block", width, 1) for width in middle),
        *((f"up_blocks.{level}", width, config.up_modules) for level, width in enumerate(config.up_channels)),
    ]
    with torch.device("meta"):
        modules = {
            width: TemporalTransformer(width, config.num_heads, config.max_length, config.num_attention_blocks)
            for width in {width for _, width, _ in levels}
        }
    states = {width: module.state_dict() for width, module in modules.items()}
    return {
        f"{level}.motion_modules.{index}.temporal_transformer.{name}": tuple(value.shape)
        for level, width, count in levels
        for index in range(count)
        for name, value in states[width].items()
    }


class _MotionTensors(Mapping[str, Tensor]):
    """A file's tensors under our keys, each read and checked when it is asked for; absent position tables are made."""

    def __init__(self, file: Mapping[str, Tensor], header: MotionHeader, path: str | Path) -> None:
        self._file = file
        self._file_keys = header.file_keys
        self._rows = header.config.max_length
        self._keys = header.keys
        self._path = path

    def __getitem__(self, key: str) -> Tensor:
        if key in self._file_keys:
            return _checked(self._file[self._file_keys[key]], self._file_keys[key], self._path)
        to_q = self[key.removesuffix(_TABLE) + ".to_q.weight"]
        table = sinusoidal_table(self._rows, to_q.shape[1])
        return table if is_narrow(to_q) else table.to(to_q.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _checked(tensor: Tensor, name: str, path: str | Path) -> Tensor:
    if not tensor.is_floating_point():
        raise CheckpointError(path, f"`{name}` must hold floating-point numbers, got {tensor.dtype}.", GET_ANOTHER)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        reason = f"`{name}` claims more numbers than the file holds."
        raise CheckpointError(path, reason, GET_ANOTHER)
    # One pass without a temporary the size of the tensor; a NaN anywhere becomes both minimum and maximum.
    wide = tensor.half() if is_narrow(tensor) else tensor
    if not all(bool(torch.isfinite(bound)) for bound in torch.aminmax(wide)):
        raise CheckpointError(path, f"`{name}` holds a NaN or an infinity.", GET_ANOTHER)
    return tensor
