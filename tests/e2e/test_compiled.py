"""The compiled build is what it says: the tests with the fixture `gateway` would pass on interpreted modules, too."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.e2e.conftest import COMPILED
from tests.e2e.harness import ROOT

pytestmark = pytest.mark.skipif(not COMPILED.is_dir(), reason="the compiled build is not there: make compiled (needs a C compiler)")


def test_every_module_that_is_to_be_compiled_is(tmp_path: Path) -> None:
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    modules = [path.strip("/").removesuffix(".py").replace("/", ".") for path in hook["include"]]
    code = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    environment = os.environ | {"PYTHONPATH": str(COMPILED)}
    found = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    files = [Path(line) for line in found.stdout.splitlines()]
    assert [file.suffix for file in files] == [".so"] * len(modules)
    assert all(file.is_relative_to(COMPILED) for file in files)


def test_a_compiled_value_knows_its_parts(tmp_path: Path) -> None:
    code = """
from gateway.call import ToolCall
from gateway.events import Timing
assert Timing(1, None, 2).parts() == {"queue_ms": 1, "first_chunk_ms": None, "total_ms": 2}
assert Timing(1, None, 2).but(total_ms=3) == Timing(1, None, 3) != Timing(1, None, 2)
assert repr(Timing(1, None, 2)) == "Timing(queue_ms=1, first_chunk_ms=None, total_ms=2)"
assert ToolCall("t", {}, 1.0).but(pool="p").pool == "p"
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(COMPILED)}, check=True)
