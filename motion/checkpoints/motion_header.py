"""What the header of a motion module file says, and whether it describes the whole of a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from motion.checkpoints.format_types import CustomMotion, MotionFormat, Shapes
from motion.checkpoints.motion_families import MotionFamily
from motion.errors import CheckpointError
from motion.models.motion_module import MotionModuleConfig

GET_ANOTHER = "The file is damaged or incomplete; get it from where it was published."


@dataclass(frozen=True)
class MotionHeader:
    """What the keys and shapes of a motion module file say.

    Attributes:
        format: how its keys are spelled.
        family: the family it belongs to.
        family_is_a_guess: its content leaves other families possible; the file's name was asked.
        config: shape of its network.
        widths: channels per down level.
        keys: keys of our network.
        file_keys: key of our network -> key of the file; lacks the position tables where the file does.
    """

    format: MotionFormat | CustomMotion
    family: MotionFamily
    family_is_a_guess: bool
    config: MotionModuleConfig
    widths: tuple[int, ...]
    keys: tuple[str, ...]
    file_keys: Mapping[str, str]


def check_shapes(
    needed: Iterable[str], expected: Shapes, shapes: Shapes, file_keys: Mapping[str, str], path: str | Path
) -> None:
    """Refuse missing and unexpected tensors and those of a wrong shape, under the names that the file gives them.

    Args:
        needed: keys of the network that the file must fill.
        expected: key -> shape of the network.
        shapes: key of the network -> shape in the file.
        file_keys: key of the network -> key of the file.
        path: the file, for messages.

    Raises:
        CheckpointError: the first thing that is wrong.
    """
    if missing := [key for key in needed if key not in shapes]:
        raise CheckpointError(path, f"The file lacks {_name_some(missing)}.", GET_ANOTHER)
    if unexpected := [file_keys[key] for key in shapes if key not in expected]:
        raise CheckpointError(path, f"The file has unexpected {_name_some(unexpected)}.", GET_ANOTHER)
    for key, shape in shapes.items():
        if shape != expected[key]:
            reason = f"`{file_keys[key]}` must have shape {list(expected[key])}, got {list(shape)}."
            raise CheckpointError(path, reason, GET_ANOTHER)


def _name_some(keys: Iterable[str]) -> str:
    names = list(keys)
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} tensors: {', '.join(f'`{name}`' for name in names[:3])}{rest}"
