"""The one table of fields that the UI, the API and the infotext share."""

from __future__ import annotations

from motion.fields.clip import CLIP_FIELDS
from motion.fields.module import MODULE_FIELDS
from motion.fields.noise import NOISE_FIELDS
from motion.fields.output import OUTPUT_FIELDS
from motion.fields.parsing import FieldSpec
from motion.fields.prompts import PROMPT_FIELDS
from motion.fields.strength import STRENGTH_FIELDS
from motion.fields.windows import WINDOW_FIELDS

FIELDS = CLIP_FIELDS | MODULE_FIELDS | WINDOW_FIELDS | PROMPT_FIELDS | NOISE_FIELDS | STRENGTH_FIELDS | OUTPUT_FIELDS
"""Field of `motion.settings.MotionSettings` -> how it is shown, checked and named. Their order is that class's."""

__all__ = ["FIELDS", "FieldSpec"]
