"""Workers that lie: about an answer, about themselves. Whoever called is told; everybody else, and the next call, is as ever."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import JOURNAL_ADAPTER, ROOT, Served, served, until, wait_for
from tests.faults.bystanders import POOL, bystanders
from tests.faults.containment import contained
from tests.faults.liar import DESCRIPTIONS, LIES
from tests.faults.rawsocket import free_port

SETTINGS = f"""
[[pools]]
name = "{POOL}"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
"""


def pool(name: str, port: int) -> str:
    return f'''
[[pools]]
name = "{name}"
addresses = ["127.0.0.1:{port}"]
start_timeout_s = 5
health_interval_s = 1
health_timeout_s = 1
'''


@contextlib.contextmanager
def liar(port: int, *kind: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-m", "tests.faults.liar", str(port), *kind], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    with liar(port), served(tmp_path_factory.mktemp("liars"), settings=SETTINGS + pool("liar", port)) as gateway:
        yield gateway


async def call(gateway: Served, *lies: str) -> list[dict[str, Any]]:
    """Return each answer's JSON, whether it is chunks and an end, or a problem; several are asked for at once."""
    async with gateway.http() as client:
        paths = [f"/v1/tools/{lie}/stream?_timeout_ms=4000&_pool=liar" for lie in lies]
        return [
            answer.json() for answer in await asyncio.gather(*(client.get(path, headers={"Accept": "application/json"}) for path in paths))
        ]


# What the caller is told: a problem type and gRPC's code for it; None: nothing was wrong.
TOLD = {
    "truth": None,
    "in_crumbs": None,
    "odd_final": None,
    "unknown_frames": None,
    "endless_chunk": ("chunk-too-large", "RESOURCE_EXHAUSTED"),
    "evil_status": ("tool-error", "FAILED_PRECONDITION"),
    "broken_details": ("tool-error", "INVALID_ARGUMENT"),
    "proxy_error": ("worker-lost", "UNAVAILABLE"),
    "giant_header": ("worker-lost", "UNAVAILABLE"),
    "vanish": ("worker-lost", "UNAVAILABLE"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_told_to_its_caller_and_the_next_call_is_as_ever(gateway: Served, lie: str) -> None:
    (answer,) = await call(gateway, lie)
    if (told := TOLD.get(lie, ("", ""))) is None:
        assert answer["end"]["status"] == "ok"
    else:
        assert {"type", "title", "status", "detail", "code", "retryable"} <= answer.keys(), answer
        if told[0]:
            assert (answer["type"], answer["code"]) == (f"/problems/{told[0]}", told[1]), answer
        assert len(answer["detail"]) < 20_000
    # The worker is asked again as soon as it answers.
    await until(gateway.is_ready, "the liar to be in service")
    assert (await call(gateway, "truth"))[0]["chunks"] == [1, 2]


async def test_many_lies_at_once_leave_the_truth_alone(gateway: Served) -> None:
    """All on few connections: what breaks one breaks those beside it, but each is told, and none hangs.

    A worker that takes no streams any more keeps its connection for health checks to judge: that isn't left behind.
    """
    async with contained(gateway):
        answers = await call(gateway, *[lie for lie in LIES if lie != "settings_no_streams"] * 3)
        assert all("end" in answer or "type" in answer for answer in answers)
        await until(gateway.is_ready, "the liar to be in service")
        assert (await call(gateway, "truth"))[0]["chunks"] == [1, 2]


@pytest.fixture(scope="module")
def fooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with a worker for each lie about oneself."""
    ports = {kind: free_port() for kind in DESCRIPTIONS}
    settings = SETTINGS + "".join(pool(kind, port) for kind, port in ports.items())
    directory: Path = tmp_path_factory.mktemp("fooled")
    with contextlib.ExitStack() as stack:
        for kind, port in ports.items():
            stack.enter_context(liar(port, kind))
        gateway = stack.enter_context(served(directory, settings=settings, ready=False))
        wait_for(lambda: gateway.pools()[POOL]["workers"][0]["state"] == "ready", "the honest worker")
        wait_for(lambda: all(settled(gateway, kind) for kind in DESCRIPTIONS), "all liars to be asked")
        yield gateway


def settled(gateway: Served, kind: str) -> bool:
    (worker,) = gateway.pools()[kind]["workers"]
    return worker["state"] == "ready" or "error" in worker


@pytest.fixture
async def bystander(fooled: Served) -> AsyncIterator[None]:
    async with bystanders(fooled):
        yield


@pytest.mark.parametrize("kind", DESCRIPTIONS)
@pytest.mark.usefixtures("bystander")
async def test_a_lie_about_oneself_is_named_or_does_no_harm(fooled: Served, kind: str) -> None:
    """Its tool can be called, by body and by query, with or without a schema; or the pool says why there is none."""
    async with fooled.http() as client:
        (worker,) = fooled.pools()[kind]["workers"]
        if kind == "many":
            assert "1500 tools" in worker["error"]
            return
        assert worker["state"] == "ready", worker
        path = f"/v1/tools/fine_{kind}/stream?_pool={kind}"
        json = {"Accept": "application/json"}
        for answer in (await client.post(path, json={}, headers=json), await client.get(f"{path}&x=1", headers=json)):
            assert answer.status_code in (200, 422), answer.text
        slow = await client.post(path, json={"x": "a" * 60 + "!"}, headers=json)
        assert slow.status_code in (200, 422), slow.text


@pytest.mark.usefixtures("bystander")
async def test_the_catalogue_and_its_document_survive_every_lie(fooled: Served) -> None:
    async with fooled.http() as client:
        listed = await client.get("/v1/tools")
        names = {entry["name"] for entry in listed.json()["tools"]}
        assert {f"fine_{kind}" for kind in DESCRIPTIONS if kind != "many"} <= names
        assert all(name.isprintable() and name and "/" not in name for name in names)
        document = await client.get("/openapi.json")
        assert (document.status_code, len(document.content) < 5_000_000) == (200, True)
        assert (await client.get("/metrics")).status_code == 200


def test_no_lie_makes_the_gateway_ask_elsewhere(fooled: Served) -> None:
    """A schema that refers to a file or to a URL is not followed: the worker would choose what we read, and where from."""
    assert not [line for line in fooled.log_lines() if line.get("level") == "error"]
    tools = {entry["name"]: entry["parameters"] for entry in fooled.client.get("/v1/tools").json()["tools"]}
    assert tools["fine_file"] is tools["fine_http"] is None
