"""Packages that register motion modules, as an installer leaves them: a module and a dist-info folder on the path."""

import importlib
import re
import sys
from pathlib import Path

DOC_PATH = Path(__file__).resolve().parents[1] / "docs" / "custom_motion_module.md"
DOC = DOC_PATH.read_text(encoding="utf-8")
NAME = "motion_scale_shift"


def code_blocks(language):
    """The document's blocks of code, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


def install(folder, module, code, points, version="1.0"):
    """Write package `module` into `folder` with entry points name -> object."""
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[motion.modules]", *lines]) + "\n", encoding="utf-8")
    importlib.invalidate_caches()


def install_documented(folder):
    """The package of the document, with the entry points of its pyproject.toml."""
    (pyproject,) = code_blocks("toml")
    assert '[project.entry-points."motion.modules"]' in pyproject
    install(folder, NAME, code_blocks("python")[0], dict(re.findall(r'^(\w+) = "(.+)"$', pyproject, re.MULTILINE)))


def forget(*modules):
    """Undo the imports of packages that are about to go."""
    for module in modules:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
