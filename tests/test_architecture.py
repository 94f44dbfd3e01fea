"""The rules of the source tree that no linter knows: who may import whom, sizes, no state in modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

# From the bottom up. A part may import from its own and from lower layers, never from a neighbour in its layer.
LAYERS = (
    {"errors", "fields", "settings", "protocols"},
    {"models"},
    {"checkpoints"},
    {"injection", "context", "conditioning", "noise", "video"},
    {"session", "svd", "training"},
    {"host", "standalone"},
    {"__main__"},
)
FOUNDATION = LAYERS[0]  # these may import one another
HOST_PACKAGES = {"modules", "modules_forge", "backend", "ldm", "ldm_patched", "sgm", "gradio", "fastapi"}
NETWORK_CLIENTS = {"aiohttp", "ftplib", "http.client", "httpx", "huggingface_hub", "requests", "urllib.request"}
WITHOUT_TORCH = (
    "motion",
    "motion.errors",
    "motion.settings",
    "motion.protocols",
    "motion.context.schedules",
    "motion.context.fusion",
)

# The embedded host answers to `modules.shared` as a web UI does, so it is in one state at a time, held in one place.
STATE_OF_THE_WEB_UI = {
    "standalone.host_state": {"_current"},
    "standalone.shared": {"latent_upscale_modes"},  # a public table, never changed
}


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return found + sorted(ROOT.glob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    """Dotted name below motion/: motion/host/ui.py -> "host.ui"; "" for the package itself."""
    parts = path.relative_to(ROOT / "motion").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions and `if TYPE_CHECKING` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            if node.module == "motion":
                yield from ((node.lineno, f"motion.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, str(node.module)


PACKAGE = sorted((ROOT / "motion").rglob("*.py"))
by_path = pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))


@by_path
def test_imports_go_downwards(path):
    part = name_of(path).split(".")[0]
    upward = []
    for line, name in imports(parse(path)):
        if not name.startswith("motion."):
            continue
        target = name.split(".")[1]
        same = target == part or {target, part} <= FOUNDATION
        if not part or not (same or layer_of(target) < layer_of(part)):
            upward.append(f"line {line}: {name}")
    assert not upward, f"motion.{part} may import itself and what lies below it only"


@by_path
def test_only_host_and_standalone_know_the_web_ui(path):
    part = name_of(path).split(".")[0]
    # The embedded host *is* `modules`: inside it that name would mean either of two things.
    forbidden = {"host": set(), "standalone": {"modules", "modules_forge"}}.get(part, HOST_PACKAGES)
    found = [f"line {line}: {name}" for line, name in imports(parse(path)) if name.split(".")[0] in forbidden]
    assert not found


@by_path
def test_nothing_can_be_downloaded(path):
    """Weights and everything else are the user's files: no file of ours opens a connection."""
    names = {name for _, name in imports(parse(path))}
    assert not {name for name in names if name in NETWORK_CLIENTS or name.split(".")[0] in NETWORK_CLIENTS}


def test_entry_script_is_the_only_script_and_imports_host_only():
    assert [path.name for path in (ROOT / "scripts").glob("*.py")] == ["motion_entry.py"]
    ours = [name for _, name in imports(parse(ROOT / "scripts" / "motion_entry.py")) if name.startswith("motion.")]
    assert {name.split(".")[1] for name in ours} <= {"host"}


@pytest.mark.parametrize("name", ["install.py", "preload.py"])
def test_what_runs_before_installation_needs_the_standard_library_only(name):
    allowed = sys.stdlib_module_names | {"pip"}  # pip's TOML reader, for Python 3.10
    assert [found for _, found in imports(parse(ROOT / name)) if found.split(".")[0] not in allowed] == []


def test_foundation_imports_without_torch_or_a_host():
    present = [name for name in WITHOUT_TORCH if (ROOT / Path(*name.split("."))).with_suffix(".py").exists()]
    code = f"import sys, {', '.join(['motion', *present])}; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.split())
    assert "motion.settings" in loaded
    assert not loaded & {"torch", "numpy", *HOST_PACKAGES}


@pytest.mark.parametrize(
    "path", files("motion", "scripts", "tests", "benchmarks"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: function.end_lineno - function.lineno + 1 for function in functions}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_TYPES = {"list", "dict", "set", "deque", "defaultdict", "OrderedDict", "Counter", "WeakKeyDictionary"}


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return called in MUTABLE_TYPES
    return isinstance(value, MUTABLE_DISPLAYS)


@by_path
def test_modules_hold_no_state(path):
    """No `global`, and no list, dict or set in a module's body that is not written as a constant."""
    tree = parse(path)
    found = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and is_mutable(statement.value):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            found |= {name for name in names if not name.isupper() and name != "__all__"}
    assert found <= STATE_OF_THE_WEB_UI.get(name_of(path), set())
