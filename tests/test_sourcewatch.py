"""Which folders are watched, and what a mistake in a file looks like; changed code with real processes is in e2e/test_reload.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.sourcewatch import SourceWatch, adapter_folder, syntax_error
from gateway.workers.options import PoolOptions


@pytest.mark.parametrize(
    ("adapter", "folder"),
    [
        ("tools.py", "."),
        ("sub/tools.py:Tools", "sub"),
        ("module:Tools", "."),
        ("package:Tools", "package"),
        ("package.part:Tools", "package"),
        ("package.part.Tools", "package"),
    ],
)
def test_the_folder_of_an_adapter_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    for name in ("module.py", "package/__init__.py", "package/part.py"):
        (tmp_path / name).touch()
    assert adapter_folder(PoolOptions("p", adapter=adapter)) == (tmp_path / folder).resolve()


def test_the_adapter_of_a_snakepit_worker_is_beside_its_script_or_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").mkdir()
    for name in ("python/beside.py", "elsewhere.py"):
        (tmp_path / name).touch()
    command = ("python", "python/grpc_server.py")
    assert adapter_folder(PoolOptions("p", "snakepit", adapter="beside.Adapter", command=command)) == (tmp_path / "python").resolve()
    assert adapter_folder(PoolOptions("p", "snakepit", adapter="elsewhere.Adapter", command=command)) == tmp_path.resolve()


@pytest.mark.parametrize("options", [PoolOptions("p", "addresses", addresses=("x:1",)), PoolOptions("p", adapter="no_such_module_here:T")])
def test_what_has_no_folder_is_not_watched(options: PoolOptions) -> None:
    assert adapter_folder(options) is None


def test_a_mistake_is_shown_with_its_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "tools.py"
    file.write_text("x = 1\ndef f(:\n")
    shown = syntax_error(file)
    assert shown is not None
    assert "tools.py" in shown
    assert "line 2" in shown
    file.write_text("x = 1\n")
    assert syntax_error(file) is None
    file.unlink()
    assert syntax_error(file) is None


async def test_a_folder_that_is_gone_does_not_end_the_gateway(tmp_path: Path) -> None:
    gateway: Any = SimpleNamespace(pool_options=[PoolOptions("p", adapter=f"{tmp_path}/gone/tools.py")], pools={})
    with capture_logs() as logs:
        await SourceWatch(gateway).run()
    assert [line["event"] for line in logs] == ["watching", "can't watch"]
