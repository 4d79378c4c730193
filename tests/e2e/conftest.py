"""Gateways for the end-to-end tests: one that most tests share, and a way to start others."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import DEMO_ADAPTER, JOURNAL_ADAPTER, Served, served

COMPILED = Path(sys.prefix) / "compiled"

_tags = itertools.count(1)

SETTINGS = f"""
[server]
retry_ms = 100
write_timeout_s = 20

[[pools]]
name = "journal"
adapter = "{JOURNAL_ADAPTER}"
size = 2
concurrency = 16
stop_timeout_s = 20

[[pools]]
name = "demo"
adapter = "{DEMO_ADAPTER}"
size = 2
"""


BUILDS = ("interpreted", "compiled")


def packages_of(build: str) -> Path | None:
    """Return the folder of a build for `served`; skips the test where the compiled one isn't there."""
    if build == "interpreted":
        return None
    if not COMPILED.is_dir():
        pytest.skip("the compiled build is not there: make compiled (needs a C compiler)")
    return COMPILED


@pytest.fixture(scope="session", params=BUILDS)
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with the journal's tools (many at once in a worker) and the demo tools (one at once), from either build."""
    with served(tmp_path_factory.mktemp("gateway"), settings=SETTINGS, packages=packages_of(request.param)) as gateway:
        yield gateway


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start a gateway of the test's own; it is stopped and judged after the test."""
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> Served:
            directory = tmp_path / f"gateway-{next(numbers)}"
            directory.mkdir()
            return stack.enter_context(served(directory, *arguments, **options))

        yield start


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    """A name for this test's tool call in the journal."""
    return f"{next(_tags)}-{request.node.name[:40].replace('[', '-').replace(']', '').replace('/', '-')}"
