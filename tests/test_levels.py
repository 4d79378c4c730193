"""The layout's one rule: a folder imports only from folders below it. Checked on the syntax tree, inside functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gateway"

# From the top down; what stands on one line never imports its neighbours.
LEVELS = (
    {
        *(
            "cli",
            "app",
            "access",
            "configured",
            "drain",
            "hosting",
            "pools",
            "reload",
            "serve",
            "sourcewatch",
            "server",
            "intake",
            "pacing",
        ),
        *("direct", "guard", "hosting", "peers", "patience", "certificates", "doctor", "settings", "__main__", "__init__"),
    },
    {"endpoints", "bridge"},
    {"runs"},
    {"services"},
    {"workers", "runlog", "sessions", "auth"},
    {"host"},
    {"hosttools"},
    {"transport"},
    {"codec", "telemetry"},
    {"call", "caller", "correlation", "events", "errors", "quota", "timers", "rpc", "value"},
)
LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts}
BOTTOM = LEVELS[-1]
# Outside the ladder: what these may import besides themselves and the bottom.
ASIDE = {"runtime": {"codec", "telemetry"}, "client": {"codec"}}
# The composition root and the command line may know everything, each other included.
TOP = LEVELS[0]
LONG = {"transport/connection.py"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "rpc")


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every part of `gateway` that is imported, and the line."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "gateway" else [module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "gateway" and len(parts) > 1:
                yield parts[1], node.lineno  # type: ignore[attr-defined]


def allowed(importer: str, imported: str) -> bool:
    if imported in ("__version__", importer) or importer in TOP:
        return True
    if importer in ASIDE:
        return imported in ASIDE[importer] | BOTTOM
    return (imported in LEVEL and LEVEL[imported] > LEVEL[importer]) or {importer, imported} <= BOTTOM


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_below(path: Path) -> None:
    importer = part_of(path)
    assert importer in LEVEL or importer in ASIDE, f"{importer} has no place in the layout"
    wrong = [f"line {line}: gateway.{name}" for name, line in imports(ast.parse(path.read_text())) if not allowed(importer, name)]
    assert wrong == []


def test_nothing_is_named_after_nothing() -> None:
    assert [path for path in modules() if path.stem in FORBIDDEN_NAMES or path.parent.name in FORBIDDEN_NAMES] == []


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    # transport/connection.py is one state machine.
    lengths = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > 400 and name not in LONG} == {}


@pytest.mark.parametrize("module", ["gateway.runtime.serve", "gateway.runtime.compat", "gateway.runtime.__main__"])
def test_worker_process_starts_without_the_web_framework(module: str) -> None:
    code = (
        f"import sys, {module}; print(*sorted({{name.split('.')[0] if not name.startswith('gateway') else name for name in sys.modules}}))"
    )
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert module in loaded
    heavy = {"fastapi", "starlette", "uvicorn", "sse_starlette", "httptools", "websockets"}
    above = {name for name in loaded if name.startswith(("gateway.endpoints", "gateway.bridge", "gateway.runs", "gateway.workers"))}
    assert (loaded & heavy, above) == (set(), set())
