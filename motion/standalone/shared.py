"""What everything in a web UI shares: `modules.shared`.

The variables below are declared here and live in the current `HostState` (see host_state.py): they exist while a host
runs. Write `shared.opts`, not `from motion.standalone.shared import opts`, in this package's own files.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from motion.standalone import host_state
from motion.standalone.options import OptionHTML, OptionInfo, Options, options_section

if TYPE_CHECKING:
    from motion.standalone.job_state import State
    from motion.standalone.styles import StyleDatabase
    from motion.standalone.total_progress import TotalProgress
    from motion.standalone.upscalers import UpscalerData

__all__ = ["OptionHTML", "OptionInfo", "Options", "listfiles", "natural_sort_key", "options_section", "walk_files"]

opts: Options
state: State
cmd_opts: argparse.Namespace
parser: argparse.ArgumentParser
options_templates: dict[str, OptionInfo]
total_tqdm: TotalProgress
prompt_styles: StyleDatabase
sd_upscalers: list[UpscalerData]
demo: Any
sd_model: Any
device: Any
data_path: str
models_path: str
script_path: str
extensions_dir: str

latent_upscale_default_mode = "Latent"
latent_upscale_modes = {
    "Latent": {"mode": "bilinear", "antialias": False},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic)": {"mode": "bicubic", "antialias": False},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
    "Latent (nearest)": {"mode": "nearest", "antialias": False},
    "Latent (nearest-exact)": {"mode": "nearest-exact", "antialias": False},
}
parallel_processing_allowed = True
xformers_available = False


def natural_sort_key(s: str) -> list[int | str]:
    """Sort key under which "frame 2" comes before "frame 10"."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split("([0-9]+)", s)]


def listfiles(dirname: str) -> list[str]:
    """Paths of the visible files in a folder, in natural order."""
    names = sorted((name for name in os.listdir(dirname) if not name.startswith(".")), key=natural_sort_key)
    return [path for path in (os.path.join(dirname, name) for name in names) if os.path.isfile(path)]


def walk_files(path: str, allowed_extensions: Iterable[str] | None = None) -> Iterator[str]:
    """Paths of all files under `path`, in natural order; extensions with the dot, in lower case."""
    allowed = None if allowed_extensions is None else set(allowed_extensions)
    for root, _, names in sorted(os.walk(path, followlinks=True), key=lambda entry: natural_sort_key(entry[0])):
        for name in sorted(names, key=natural_sort_key):
            if allowed is None or os.path.splitext(name)[1].lower() in allowed:
                yield os.path.join(root, name)


def _loaded_model() -> Any:
    from motion.standalone import sd_models  # sd_models itself imports shared

    return sd_models.model_data.get_sd_model()


def _device() -> Any:
    from motion.standalone import devices  # devices itself imports shared

    return devices.device


host_state.forward(
    __name__,
    {
        **{
            name: name
            for name in (
                "opts",
                "state",
                "cmd_opts",
                "parser",
                "options_templates",
                "total_tqdm",
                "prompt_styles",
                "sd_upscalers",
                "demo",
            )
        },
        **{name: f"paths.{name}" for name in ("data_path", "models_path", "script_path", "extensions_dir")},
        "sd_model": _loaded_model,
        "device": _device,
    },
)
