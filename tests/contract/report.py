"""The report of a run on a real host: JSON for machines and notes, a contact sheet for eyes."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FRAMES_SHOWN = 8
CELL = 64
LABEL_WIDTH = 160
PACKAGES = ("torch", "gradio", "numpy", "transformers", "fastapi", "pydantic", "Pillow", "av", "einops", "safetensors")


def host_versions(python: str) -> dict[str, str]:
    """Python and package versions of a web UI's environment."""
    code = (
        "import importlib.metadata as m, json, platform\n"
        "def version(name):\n"
        "    try: return m.version(name)\n"
        "    except m.PackageNotFoundError: return 'missing'\n"
        f"print(json.dumps({{'python': platform.python_version(), **{{n: version(n) for n in {PACKAGES}}}}}))"
    )
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def host_commit(folder: Path) -> str:
    """Commit of an installed web UI, or "unknown" where it is no git checkout of its own."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() if (folder / ".git").exists() and result.returncode == 0 else "unknown"


class Report:
    """Collects outcomes while pytest runs.

    Args:
        path: the JSON file; the contact sheet goes beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host: dict[str, str] = {}
        self.checks: dict[str, dict] = {}
        self.figures: dict[str, float] = {}
        self.frames: dict[str, np.ndarray] = {}

    def add_check(self, name: str, outcome: str, seconds: float, message: str = "") -> None:
        """One phase of one test; the worst outcome and the sum of the seconds count."""
        known = self.checks.setdefault(name, {"outcome": "passed", "seconds": 0.0})
        known["seconds"] = round(known["seconds"] + seconds, 2)
        if outcome != "passed":
            known.update(outcome=outcome, message=message)

    def write(self) -> None:
        """Write both files."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        outcomes = Counter(check["outcome"] for check in self.checks.values())
        content = {
            "host": self.host,
            "outcomes": dict(outcomes),
            "seconds": round(sum(check["seconds"] for check in self.checks.values()), 1),
            "figures": self.figures,
            "checks": self.checks,
        }
        self.path.write_text(json.dumps(content, indent=2), encoding="utf-8")
        if self.frames:
            contact_sheet(self.frames).save(self.path.with_suffix(".png"))


def contact_sheet(clips: dict[str, np.ndarray]) -> Image.Image:
    """One row for each clip (uint8 [f, h, w, 3]): its name and its first frames."""
    sheet = Image.new("RGB", (LABEL_WIDTH + FRAMES_SHOWN * CELL, len(clips) * CELL), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, frames) in enumerate(clips.items()):
        draw.text((4, row * CELL + CELL // 3), name, fill="black")
        for column, frame in enumerate(frames[:FRAMES_SHOWN]):
            picture = Image.fromarray(frame).resize((CELL, CELL))
            sheet.paste(picture, (LABEL_WIDTH + column * CELL, row * CELL))
    return sheet
