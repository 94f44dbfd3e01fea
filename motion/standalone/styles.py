"""Named prompt fragments from styles.csv: `modules.styles`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple


class PromptStyle(NamedTuple):
    """One row of styles.csv."""

    name: str
    prompt: str
    negative_prompt: str


def merge_prompts(style_prompt: str, prompt: str) -> str:
    """`prompt` in the style's `{prompt}` place, or before the style's text."""
    if "{prompt}" in style_prompt:
        return style_prompt.replace("{prompt}", prompt)
    return ", ".join(part for part in (prompt.strip(), style_prompt.strip()) if part)


class StyleDatabase:
    """Styles by name; unknown names add nothing, as in A1111."""

    def __init__(self, path: str | Path) -> None:
        self.no_style = PromptStyle("None", "", "")
        self.path = Path(path)
        self.styles: dict[str, PromptStyle] = {}
        self.reload()

    def reload(self) -> None:
        """Read the file again; a missing one is no style."""
        self.styles.clear()
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, skipinitialspace=True):
                name = row.get("name") or ""
                if name and not name.startswith("#"):
                    self.styles[name] = PromptStyle(name, row.get("prompt") or "", row.get("negative_prompt") or "")

    def get_style_prompts(self, styles: list[str]) -> list[str]:
        """Prompt text of each style."""
        return [self.styles.get(name, self.no_style).prompt for name in styles]

    def get_negative_style_prompts(self, styles: list[str]) -> list[str]:
        """Negative prompt text of each style."""
        return [self.styles.get(name, self.no_style).negative_prompt for name in styles]

    def apply_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        """`prompt` with the styles' texts, one after another."""
        for text in self.get_style_prompts(styles):
            prompt = merge_prompts(text, prompt)
        return prompt

    def apply_negative_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        """Negative `prompt` with the styles' texts, one after another."""
        for text in self.get_negative_style_prompts(styles):
            prompt = merge_prompts(text, prompt)
        return prompt
