"""What README.md says about the settings is what the settings are."""

from __future__ import annotations

import re
from pathlib import Path

from motion.settings import MotionSettings, field_specs

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_settings_table_is_the_field_table():
    rows = [
        [cell.strip() for cell in row.split("|")] for row in re.findall(r"^\| (`\w+` \|.*) \|$", README, re.MULTILINE)
    ]
    assert [row[0].strip("`") for row in rows] == list(field_specs())
    for name, label, default, allowed, _ in rows:
        spec = field_specs()[name.strip("`")]
        assert label == spec.label
        assert MotionSettings.from_mapping({name.strip("`"): default}) == MotionSettings()
        if spec.maximum is not None:
            assert allowed == f"{spec.minimum:g} to {spec.maximum:.10g}"
        elif spec.choices:
            assert allowed == ", ".join(spec.choices)
