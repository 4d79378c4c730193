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
