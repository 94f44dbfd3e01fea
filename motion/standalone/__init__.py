"""The embedded host: a small web UI of our own, with the part of A1111's API that extensions use.

`Pipeline`, `RenderSettings` and `Clip` are its Python door. They are imported when they are first asked for, so that
the command line answers `--help` without loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motion.standalone.clip import Clip
    from motion.standalone.pipeline import Pipeline
    from motion.standalone.render_settings import RenderSettings

__all__ = ["Clip", "Pipeline", "RenderSettings"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"Clip": "clip", "Pipeline": "pipeline", "RenderSettings": "render_settings"}
    return getattr(importlib.import_module(f"{__name__}.{homes[name]}"), name)
