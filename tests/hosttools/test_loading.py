"""Which functions the setting names, what is known of them, and what is said of an entry that can't be used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.hosttools.loading import HostToolsNotLoaded, load

MODULE = '''
"""Tools for tests."""
from __future__ import annotations

from gateway import host_tool

VERSION = {version}


@host_tool
def lookup(name: str, limit: int = 10) -> dict:
    """Look a name up.

    Args:
        name: Whom to look for.
    """
    return {{"name": name, "limit": limit, "version": VERSION}}


@host_tool(name="other.name", description="Say hello")
async def hello(*, who: str | None = None) -> str:
    return f"hello {{who}}"


def plain(**anything: object) -> object:
    return anything


def _hidden() -> None:
    pass


def yields():
    yield 1


class Thing:
    pass
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "some_host_tools.py").write_text(MODULE.format(version=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("some_host_tools", "host_tools_some_host_tools"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("target", ["some_host_tools", "some_host_tools.py"])
def test_a_module_or_a_file_stands_for_its_marked_functions(folder: Path, target: str) -> None:
    tools = load([target])
    assert list(tools) == ["lookup", "other.name"]
    assert [tool.is_async for tool in tools.values()] == [False, True]


@pytest.mark.parametrize("target", ["some_host_tools:plain", "some_host_tools.py:plain"])
def test_a_function_that_is_named_needs_no_mark(folder: Path, target: str) -> None:
    assert list(load([target, "some_host_tools:hello"])) == ["plain", "other.name"]


def test_a_spec_is_the_signature_and_the_docstring(folder: Path) -> None:
    lookup, hello = (tool.spec() for tool in load(["some_host_tools"]).values())
    assert (lookup.name, lookup.description, hello.description) == ("lookup", "Look a name up.", "Say hello")
    assert [(spec.name, spec.type, spec.required, spec.description, spec.validation_json) for spec in lookup.parameters] == [
        ("name", "str", True, "Whom to look for.", ""),
        ("limit", "int", False, "", '{"default":10}'),
    ]


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["nowhere_at_all"], ["'nowhere_at_all'", "ModuleNotFoundError"]),
        (["nowhere.py"], ["there is no file nowhere.py"]),
        (["some_host_tools:looup"], ["there is no function 'looup'", "lookup, hello, plain, yields"]),
        (["some_host_tools:Thing"], ["there is no function 'Thing'"]),
        (["some_host_tools:yields"], ["yields; a host tool returns one value"]),
        (["some_host_tools:_hidden"], ["can't be a tool's name", "1 to 64"]),
        (["unmarked.py"], ["no function marked with @host_tool"]),
        (["some_host_tools", "some_host_tools.py:lookup"], ["both offer a tool 'lookup'"]),
        (["broken.py"], ["'broken.py' can't be imported: SyntaxError"]),
        (["leaves.py"], ["'leaves.py' can't be imported: SystemExit"]),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(folder: Path, targets: list[str], words: list[str]) -> None:
    (folder / "unmarked.py").write_text("def f(): pass\n")
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "leaves.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(HostToolsNotLoaded) as caught:
        load(targets)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("target", ["some_host_tools", "some_host_tools.py"])
def test_loading_again_reads_the_code_again(folder: Path, target: str) -> None:
    before = load([target])["lookup"]
    (folder / "some_host_tools.py").write_text(MODULE.format(version=222))
    after = load([target], again=True)["lookup"]
    assert after.function("x")["version"] == 222
    # A call that runs goes on with what it began with.
    assert before.function is not after.function
