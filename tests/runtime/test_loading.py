"""loading.py and compat.py: from what --adapter says to a class."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.loading import AdapterNotLoaded, load
from gateway.runtime.tool import tool

ONE = """
from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.tool import tool

class {name}(BaseAdapter):
    @tool()
    def hello(self): return "hello"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


class Plain(BaseAdapter):
    @tool()
    def hello(self) -> str:
        return "hello"


@pytest.mark.parametrize("target", ["some_pkg.adapters:First", "some_pkg.adapters.First"])
def test_module_and_class_in_both_spellings(folder: Path, target: str) -> None:
    (folder / "some_pkg").mkdir()
    (folder / "some_pkg" / "adapters.py").write_text(ONE.format(name="First"))
    loaded = load(target)
    assert loaded.name == "some_pkg.adapters:First"
    assert list(loaded.tools) == ["hello"]


def test_file_with_one_adapter_needs_no_name(folder: Path) -> None:
    (folder / "my_tools.py").write_text(ONE.format(name="Only") + "from pathlib import Path\nclass NoAdapter: ...\n")
    assert load(str(folder / "my_tools.py")).name == "my_tools:Only"


def test_file_with_several_adapters_wants_a_name_and_lists_them(folder: Path) -> None:
    path = folder / "two_tools.py"
    path.write_text(ONE.format(name="First") + ONE.format(name="Second"))
    with pytest.raises(AdapterNotLoaded, match="several adapter classes: First, Second; name one, as in"):
        load(str(path))
    assert load(f"{path}:Second").type.__name__ == "Second"


def test_file_called_like_a_standard_module_does_not_replace_it(folder: Path) -> None:
    import json

    (folder / "json.py").write_text(ONE.format(name="Only"))
    assert load(str(folder / "json.py")).name == "adapter_json:Only"
    assert sys.modules["json"] is json


def test_file_may_import_its_neighbours(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "neighbour_of_it.py").write_text("word = 1\n")
    (inner / "with_neighbour.py").write_text("import neighbour_of_it\n" + ONE.format(name="Only"))
    assert load(str(inner / "with_neighbour.py")).tools


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module_here:A", "there is no module 'no_such_module_here'"),
        ("nodots", "names no class: write module:Class, module.Class or path/to/file.py"),
        ("no/such/file.py", "there is no adapter file no/such/file.py"),
        ("empty_tools.py", "has no adapter class"),
        ("empty_tools.py:Nope", "has no class Nope; adapter classes in it: none"),
        ("bare_tools.py", "has no tools: mark its methods with @tool"),
    ],
)
def test_what_cannot_be_loaded_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty_tools.py").write_text("x = 1\n")
    (folder / "bare_tools.py").write_text("from gateway.runtime.adapter import BaseAdapter\nclass Bare(BaseAdapter): ...\n")
    with pytest.raises(AdapterNotLoaded, match=message):
        load(target)


def test_import_that_the_adapter_itself_misses_is_the_users_to_see(folder: Path) -> None:
    (folder / "needs_more.py").write_text("import a_module_nobody_has\n")
    with pytest.raises(ModuleNotFoundError, match="a_module_nobody_has"):
        load("needs_more:A")


def test_concurrency_is_allowed_for_thread_safe_or_async_adapters_only() -> None:
    from gateway.runtime.loading import inspect_adapter

    class Safe(Plain):
        __thread_safe__ = True

    class Async(BaseAdapter):
        @tool()
        async def hello(self) -> None: ...

    assert [inspect_adapter(kind).allows_concurrency for kind in (Plain, Safe, Async)] == [False, True, True]


def python(code: str, folder: Path) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=30
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_snakepits_modules_are_offered_where_they_are_missing(folder: Path) -> None:
    code = """
from gateway.runtime import compat
compat.install(); compat.install()
from snakepit_bridge.base_adapter import BaseAdapter, tool, ToolMetadata
from snakepit_bridge.adapters.showcase.tool import StreamChunk, tool as same
from snakepit_bridge.session_context import SessionContext
import snakepit_bridge.adapters.showcase, gateway.runtime.adapter, gateway.runtime.chunk
print(BaseAdapter is gateway.runtime.adapter.BaseAdapter, StreamChunk is gateway.runtime.chunk.StreamChunk, same is tool)
try:
    import snakepit_bridge.other
except ModuleNotFoundError:
    print("missing")
"""
    assert python(code, folder).split() == ["True", "True", "True", "missing"]


def test_installed_snakepit_bridge_wins_whole(folder: Path) -> None:
    package = folder / "snakepit_bridge"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base_adapter.py").write_text("real = True\n")
    code = f"""
import sys; sys.path.insert(0, {str(folder)!r})
from gateway.runtime import compat
compat.install()
from snakepit_bridge.base_adapter import real
try:
    import snakepit_bridge.adapters
except ModuleNotFoundError:
    print("not added to")
"""
    assert python(code, folder) == "not added to"


def test_runtime_needs_no_web_framework(folder: Path) -> None:
    code = """
import sys
import gateway.runtime.serve
print([name for name in ("fastapi", "starlette", "uvicorn", "httpx", "typer", "numpy") if name in sys.modules])
"""
    assert python(code, folder) == "[]"
