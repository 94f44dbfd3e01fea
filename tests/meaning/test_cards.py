"""The card of the shipped weights says what the recipe does, and of which files it speaks."""

from __future__ import annotations

import hashlib
import re

import pytest

from motion.standalone.demo_files import SHIPPED
from motion.training.shapes_recipe import STAGES

CARD = (SHIPPED / "README.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in CARD.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_described_as_it_is_run(name):
    stage = STAGES[name]
    (row,) = (row for row in ROWS if row[0] == f"`{name}`")
    _, steps, batch, rate, clips, seeds, *_ = row
    assert (int(steps), int(batch), float(rate)) == (stage.trainer.steps, stage.batch_size, stage.trainer.learning_rate)
    assert int(re.sub(r"\D", "", clips) or 0) == stage.clips
    assert seeds == (f"{stage.trainer.seed}, {stage.data_seed}" if stage.clips else f"{stage.trainer.seed}")


def test_every_file_has_its_digest():
    files = {path.name: path for path in SHIPPED.glob("*.safetensors")}
    digests = {row[0].strip("`"): row[-1].strip("`") for row in ROWS if row[0].endswith(".safetensors`")}
    assert digests == {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}
