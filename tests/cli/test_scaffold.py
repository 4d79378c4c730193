"""`gateway new`, by running what it has written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.client import Client
from tests.e2e.harness import served


def new(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["new", *arguments])
    return result.exit_code, result.output


def test_what_is_written_passes_its_tests_is_served_and_streams(tmp_path: Path) -> None:
    exit_code, said = new("my_tools", "--directory", str(tmp_path))
    assert (exit_code, f"gateway serve {tmp_path}/my_tools.py" in said) == (0, True)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(tmp_path)]
    tested = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    assert (tested.returncode, "4 passed" in tested.stdout) == (0, True), tested.stdout
    directory = tmp_path / "gateway"
    directory.mkdir()
    with served(directory, str(tmp_path / "my_tools.py")) as gateway, Client(gateway.url) as client:
        stream = client.stream("train", {"epochs": 2, "pause_s": 0})
        assert [chunk.get("epoch") for chunk in stream] == [1, 2, None]
        assert stream.metadata["epochs"] == "2"
        assert "".join(client.stream("speak", {"text": "a b", "pause_s": 0})) == "a b "
        assert client.call("add", {"a": 1, "b": 2}) == 3
        assert httpx.get(f"{gateway.url}/v1/tools/train", trust_env=False).json()["description"] == "Train, reporting progress."


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_my_tools.py").write_text("mine")
    exit_code, said = new("my_tools", "--directory", str(tmp_path))
    assert (exit_code, "already there" in said) == (2, True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("test_my_tools.py", "mine")]


@pytest.mark.parametrize("name", ["my-tools", "MyTools", "1st", "class", "a/b", ""])
def test_a_name_that_no_module_can_have_is_refused(tmp_path: Path, name: str) -> None:
    exit_code, said = new(name, "--directory", str(tmp_path))
    assert (exit_code, "such as my_tools" in said, list(tmp_path.iterdir())) == (2, True, [])


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    exit_code, said = new("my_tools", "--directory", str(tmp_path / "nowhere"))
    assert (exit_code, "no such directory" in said) == (2, True)
