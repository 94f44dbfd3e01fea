"""Families of motion modules: the arithmetic that comes with the weights and can't be seen in their shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motion.protocols import BetaSchedule


@dataclass(frozen=True)
class MotionFamily:
    """What all motion modules of one kind have in common and their shapes don't tell.

    Attributes:
        id: short name, as settings and reports write it.
        title: name for people.
        base: the Stable Diffusion family whose UNet it fits, "sd15" or "sdxl".
        unet_norm_over_frames: the UNet's ResBlocks and its final norm take their statistics over all frames.
        motion_norm_over_frames: the modules' own norm does so.
        beta_schedule: noise schedule of the training.
        trained_frames: frames of a clip in training, the window to work in.
        table_rows: rows of the position table, for files that come without one.
        lcm_original_steps: steps that an LCM sampler divides; None leaves the sampler's own.
    """

    id: str
    title: str
    base: str
    unet_norm_over_frames: bool
    motion_norm_over_frames: bool
    beta_schedule: BetaSchedule
    trained_frames: int
    table_rows: int
    lcm_original_steps: int | None = None

    def trained_window(self, max_length: int) -> int:
        """Frames of a clip in the training of a module of this family that has `max_length` positions.

        A v2 module with a longer table than AnimateDiff's is LongAnimateDiff's, trained on clips as long as its table.
        """
        if self.id == "sd15_v2" and max_length > self.table_rows:
            return max_length
        return min(self.trained_frames, max_length)


_SD15_BETAS = BetaSchedule("linear", start=0.00085, end=0.012)
_SDXL_BETAS = BetaSchedule("scaled_linear", start=0.00085, end=0.012)
_SDXL_BETA_BETAS = BetaSchedule("scaled_linear", start=0.00085, end=0.020)

MOTION_FAMILIES: dict[str, MotionFamily] = {
    family.id: family
    for family in (
        MotionFamily("sd15_v1", "AnimateDiff v1 (SD1.5)", "sd15", True, False, _SD15_BETAS, 16, 24),
        MotionFamily("sd15_v2", "AnimateDiff v2 (SD1.5)", "sd15", False, False, _SD15_BETAS, 16, 32),
        MotionFamily("sd15_v3", "AnimateDiff v3 (SD1.5)", "sd15", False, False, _SD15_BETAS, 16, 32),
        MotionFamily("sdxl_beta", "AnimateDiff beta (SDXL)", "sdxl", False, True, _SDXL_BETA_BETAS, 16, 32),
        MotionFamily("hotshot_xl", "HotShot-XL (SDXL)", "sdxl", True, False, _SDXL_BETAS, 8, 24),
        MotionFamily("animate_lcm", "AnimateLCM (SD1.5)", "sd15", False, False, _SD15_BETAS, 16, 64, 100),
    )
}

# The families whose modules have one in the UNet's middle block; everything that is trained on them has its keys.
FAMILIES_WITH_MIDDLE = ("sd15_v2", "animate_lcm")

# Asked only where content can't tell. A v1 name has no second version behind it: mm_sd_v15_v2 is no v1.
_NAME_HINTS = {
    "sd15_v1": re.compile(r"v1(?:[-_.]?[45])?(?![-_.]?v?\d)"),
    "animate_lcm": re.compile(r"(?:animate|(?<![a-z]))lcm|animate[-_ .]lcm"),
    "hotshot_xl": re.compile(r"hot[-_ ]?shot|hsxl|(?<![a-z])hs(?![a-z])"),
}
# Under these names every repository in diffusers' layout keeps its weights; only the folder tells them apart.
_NAMES_OF_ANY_FILE = re.compile(r"(?:diffusion_pytorch_)?model|pytorch_model", re.IGNORECASE)


def guess_family(candidates: Sequence[str], path: Path) -> MotionFamily:
    """The family among `candidates` that the file's name speaks for, else the first of them."""
    stem = path.name.split(".")[0]
    name = (path.parent.name if _NAMES_OF_ANY_FILE.fullmatch(stem) else path.stem).lower()
    hinted = (each for each in candidates if each in _NAME_HINTS and _NAME_HINTS[each].search(name))
    return MOTION_FAMILIES[next(hinted, candidates[0])]
