"""Every code block of the client's documents runs as it stands, against the demo tools; so does the README's."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import DEMO_ADAPTER, ROOT, Served, served

DEFAULT_URL = "http://localhost:8000"


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("docs"), str(DEMO_ADAPTER)) as gateway:
        yield gateway


def run_python(code: list[str], gateway: Served) -> str:
    """Run blocks one after another, as one program; return what they print."""
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, block in enumerate(code, 1):
            exec(compile(block.replace(DEFAULT_URL, gateway.url), f"<block {number}>", "exec"), names)
    names["client"].close()
    return printed.getvalue()


def test_the_python_client_does_what_its_document_says(gateway: Served) -> None:
    code = blocks("docs/python-client.md", "python")
    assert len(code) >= 9
    printed = run_python(code, gateway)
    assert "{'type': 'progress', 'epoch': 1, 'loss': 1.0, 'accuracy': 0.5}" in printed
    assert "ValueError failed after 1 chunks, as asked" in printed
    assert "it was cancelled by a client" in printed
    assert "a b c3.0" in printed


def test_the_readme_shows_a_client_that_works(gateway: Served) -> None:
    code = [block for block in blocks("README.md", "python") if "Client" in block]
    assert len(code) == 1
    assert "ok" in run_python(code, gateway)


@pytest.mark.parametrize("block", blocks("docs/cli.md", "sh"), ids=lambda block: block.splitlines()[0])
def test_the_command_line_does_what_its_document_says(gateway: Served, tmp_path: Path, block: str) -> None:
    # A block may speak of runs of the ones before it.
    gateway.client.post("/v1/tools/train_model/stream", json={"epochs": 3}).raise_for_status()
    environment = {**os.environ, "GATEWAY_URL": gateway.url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "-e", "-c", block]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout
