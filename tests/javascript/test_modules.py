"""The JavaScript modules in Node: what node's own test runner says, and the compiler of their types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.endpoints.console import STATIC
from tests.e2e.harness import DEMO_ADAPTER, JOURNAL_ADAPTER, ROOT, served
from tests.endpoints.people import ADA

HERE = Path(__file__).parent
NODE = shutil.which("node")
# Node 20 has a WebSocket for those who ask.
SOCKET_FLAGS = ("--experimental-websocket", "--no-warnings")
TSC = ROOT / ".venv" / "node" / "node_modules" / ".bin" / "tsc"

needs_node = pytest.mark.skipif(NODE is None, reason="there is no node; on Debian: apt-get install nodejs")


def node(*arguments: str, **environment: str) -> str:
    """Run node; fail with what it says where it isn't content."""
    result = subprocess.run(
        [str(NODE), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_node
@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.stem)
def test_module_in_node(path: Path) -> None:
    told = node("--test", "--test-reporter=tap", str(path))
    assert re.search(r"^# pass [1-9]", told, re.MULTILINE), told


@needs_node
def test_client_and_a_gateway(tmp_path: Path) -> None:
    """Over HTTP and on a socket, against a real gateway."""
    settings = f"""
[[pools]]
name = "journal"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16

[[pools]]
name = "demo"
adapter = "{DEMO_ADAPTER}"
size = 2
"""
    with served(tmp_path, settings=settings) as gateway:
        node(*SOCKET_FLAGS, "--test", "--test-reporter=tap", str(HERE / "live.mjs"), GATEWAY_URL=gateway.url)
        assert gateway.is_idle()


@pytest.mark.skipif(NODE is None or not TSC.exists(), reason="there is no TypeScript; `make test` installs it, where there is npm")
def test_types_fit() -> None:
    """The client and the console by their JSDoc, and callers by client.d.ts."""
    result = subprocess.run([str(TSC), "-p", str(HERE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_every_export_has_its_types() -> None:
    exported = set(re.findall(r"\w+", " ".join(re.findall(r"export \{([^}]*)\}", (STATIC / "client.js").read_text()))))
    declared = set(re.findall(r"export class (\w+)", (STATIC / "client.d.ts").read_text()))
    assert exported == declared


def examples() -> list[str]:
    return re.findall(r"^```js\n(.*?)^```", (ROOT / "docs" / "javascript-client.md").read_text(), re.MULTILINE | re.DOTALL)


def run_example(example: str, url: str, path: Path) -> str:
    path.write_text(example.replace("./client.js", (STATIC / "client.js").as_uri()).replace("http://localhost:8000", url))
    return node(*SOCKET_FLAGS, str(path))


@needs_node
def test_examples_of_the_docs_run(tmp_path: Path) -> None:
    assert len(examples()) >= 5
    with served(tmp_path, str(DEMO_ADAPTER)) as gateway:
        for number, example in enumerate(examples()):
            assert run_example(example, gateway.url, tmp_path / f"{number}.mjs")


@needs_node
def test_example_with_a_key_runs_where_one_is_wanted(tmp_path: Path) -> None:
    (example,) = (example for example in examples() if "gw_your_key" in example)
    with served(tmp_path, str(DEMO_ADAPTER), environment={"GATEWAY_AUTH__KEYS": ADA.line, "GATEWAY_KEY": ADA.key}) as gateway:
        lines = run_example(example.replace("gw_your_key", ADA.key), gateway.url, tmp_path / "right.mjs").splitlines()
        assert lines[-2:] == ["1", "2"]
        with pytest.raises(AssertionError, match="invalid-credential"):
            run_example(example, gateway.url, tmp_path / "wrong.mjs")
