"""A gateway with workers like Snakepit's behind it: most tests share one, and some start their own."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import ROOT, Served, served, until

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
ADAPTERS = "tests.snakepit.fake_adapters"


def pool(name: str = "snakepit", adapter: str = "Tools", *command: str, **options: Any) -> str:
    """The settings of a pool of fake workers."""
    words = [sys.executable, str(FAKE_WORKER), *command]
    lines = {"name": name, "kind": "snakepit", "command": words, "adapter": f"{ADAPTERS}.{adapter}", "size": 1, **options}
    return "[[pools]]\n" + "\n".join(f"{key} = {toml(value)}" for key, value in lines.items()) + "\n"


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture(scope="session", params=BUILDS)
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with one worker that takes four calls at once, from either build."""
    directory = tmp_path_factory.mktemp("snakepit")
    environment = {"FAKE_JOURNAL": str(directory / "fake"), "GATEWAY_SERVER__META_KEYS": '["color"]'}
    settings = pool(concurrency=4, pythonpath=str(ROOT))
    with served(directory, settings=settings, environment=environment, packages=packages_of(request.param)) as gateway:
        yield gateway


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start a gateway of the test's own with these settings; it is stopped and judged after the test."""
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def start(settings: str, **options: Any) -> Served:
            directory = tmp_path / f"gateway-{next(numbers)}"
            directory.mkdir()
            environment = {"FAKE_JOURNAL": str(directory / "fake"), **options.pop("environment", {})}
            return stack.enter_context(served(directory, settings=settings, environment=environment, **options))

        yield start


def told(gateway: Served) -> list[str]:
    """What the fake workers wrote down, without their process ids."""
    path = gateway.directory / "fake"
    return [line.partition(" ")[2] for line in path.read_text().splitlines()] if path.exists() else []


async def stall(gateway: Served, query: str = "") -> None:
    """Start a flood, read nothing of it, and return when the gateway has had enough."""
    end: dict[str, Any] = {}
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/flood/stream?{query}") as response:
        run = response.headers["content-location"].rpartition("/")[0]

        def has_ended() -> bool:
            end.update(gateway.client.get(run).json())
            return bool(end["state"] == "error")

        await until(has_ended, "the run to be ended")
    assert end["end"]["error"]["type"] == "/problems/slow-reader"
    assert "the pool's stall_limit_bytes is" in end["end"]["error"]["detail"]
