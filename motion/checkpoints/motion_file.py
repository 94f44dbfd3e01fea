"""Motion module files: which family one is, the shape of its network, and the network itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from motion.checkpoints.file_formats import Shapes, position_table_length, recognise
from motion.checkpoints.loading import load_into
from motion.checkpoints.weight_file import open_weights, read_shapes
from motion.errors import CheckpointError
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.protocols import BetaSchedule

_SITE_WIDTH = re.compile(
    r"(down_blocks|mid_block|up_blocks)\.?(\d*)\.motion_modules\.0\.temporal_transformer\.norm\.weight"
)


@dataclass(frozen=True)
class MotionFamily:
    """What all motion modules of one kind have in common and their shapes don't tell.

    Attributes:
        id: name of the file format.
        title: name for people.
        base: the Stable Diffusion family whose UNet it fits, "sd15".
        unet_norm_over_frames: the UNet's ResBlocks and its final norm take their statistics over all frames.
        motion_norm_over_frames: the modules' own norm does so.
        beta_schedule: noise schedule of the training.
        trained_frames: frames of a clip in training.
    """

    id: str
    title: str
    base: str
    unet_norm_over_frames: bool
    motion_norm_over_frames: bool
    beta_schedule: BetaSchedule
    trained_frames: int


_SD15_BETAS = BetaSchedule("linear", start=0.00085, end=0.012)
MOTION_FAMILIES: dict[str, MotionFamily] = {
    family.id: family
    for family in (
        MotionFamily("sd15_v1", "AnimateDiff v1 (SD1.5)", "sd15", True, False, _SD15_BETAS, 16),
        MotionFamily("sd15_v2", "AnimateDiff v2 (SD1.5)", "sd15", False, False, _SD15_BETAS, 16),
        MotionFamily("sd15_v3", "AnimateDiff v3 (SD1.5)", "sd15", False, False, _SD15_BETAS, 16),
    )
}


def inspect_motion_file(path: str | Path) -> tuple[MotionFamily, MotionModuleConfig]:
    """Family and shape of a motion module file, from its keys and shapes; no tensor data is read.

    Raises:
        CheckpointError: the file can't be read, is something else, or lacks parts.
    """
    shapes = read_shapes(path)
    family = _find_family(shapes, path)
    return family, _derive_config(shapes, family, path)


def load_motion_model(
    path: str | Path, *, device: torch.device, dtype: torch.dtype | None
) -> tuple[MotionModel, MotionFamily]:
    """The network of a motion module file, frozen, and its family.

    Args:
        path: the file.
        device: where the network goes.
        dtype: type of its weights; None keeps the file's.

    Raises:
        CheckpointError: the file can't be read, is something else, or its tensors don't make up a motion module.
    """
    family, config = inspect_motion_file(path)
    with torch.device("meta"):
        model = MotionModel(config)
    with open_weights(path) as file:
        load_into(model, file, device=device, dtype=dtype, path=path)
    return model, family


def _find_family(shapes: Shapes, path: str | Path) -> MotionFamily:
    found = recognise(shapes)
    if found is not None and found.id in MOTION_FAMILIES:
        return MOTION_FAMILIES[found.id]
    supported = ", ".join(family.title for family in MOTION_FAMILIES.values())
    remedy = f"Choose a motion module of one of these families: {supported}."
    if found is None:
        keys = ", ".join(f"`{key}`" for key in list(shapes)[:3])
        raise CheckpointError(path, f"This is no motion module; its tensors have names such as {keys}.", remedy)
    raise CheckpointError(path, f"This is {found.title}, which can't be used as a motion module here.", remedy)


def _derive_config(shapes: Shapes, family: MotionFamily, path: str | Path) -> MotionModuleConfig:
    """Widths of all levels, length of the position table and number of attentions, as the shapes have them."""
    widths: dict[str, dict[int, int]] = {"down_blocks": {}, "mid_block": {}, "up_blocks": {}}
    attentions = set()
    for key, shape in shapes.items():
        if site := _SITE_WIDTH.fullmatch(key):
            widths[site[1]][int(site[2] or 0)] = shape[0]
        if attention := re.search(r"\.attention_blocks\.(\d+)\.", key):
            attentions.add(int(attention[1]))
    length = position_table_length(shapes)
    down, up = widths["down_blocks"], widths["up_blocks"]
    if length is None or sorted(down) != list(range(len(down))) or sorted(up) != list(range(len(down))) or not down:
        reason = f"Down levels {sorted(down)} and up levels {sorted(up)} of its motion modules don't make a UNet."
        raise CheckpointError(path, reason, "The file is incomplete; get it from where it was published.")
    try:
        return MotionModuleConfig(
            down_channels=tuple(down[level] for level in sorted(down)),
            up_channels=tuple(up[level] for level in sorted(up)),
            mid_channels=widths["mid_block"].get(0),
            max_length=length,
            num_attention_blocks=len(attentions),
            motion_norm_over_frames=family.motion_norm_over_frames,
            unet_norm_over_frames=family.unet_norm_over_frames,
        )
    except ValueError as error:
        raise CheckpointError(path, str(error), "Choose another motion module.") from error
