"""A network that is late, cuts, trickles, corrupts and ends one direction: to a client, to a worker, to Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import JOURNAL_ADAPTER, ROOT, Served, Story, events_of, read_sse, until, wait_for
from tests.e2e.proxy import Proxy, proxied
from tests.faults.bystanders import POOL
from tests.faults.containment import contained
from tests.valkey import Valkey

COUNT = 300


async def story(gateway: Served, path: str, url: str | None = None) -> Story:
    async with gateway.http() as client, client.stream("GET", (url or gateway.url) + path, timeout=30) as response:
        assert response.status_code == 200, await response.aread()
        return await read_sse(response)


def late(proxy: Proxy) -> None:
    proxy.up.delay_s = proxy.down.delay_s = 0.05


def trickling(proxy: Proxy) -> None:
    proxy.up.piece_bytes, proxy.up.delay_s = 7, 0.0005
    proxy.down.piece_bytes, proxy.down.delay_s = 97, 0.0005


# to a client


@pytest.mark.parametrize("weather", [late, trickling])
async def test_a_client_on_a_bad_line_gets_everything(gateway: Served, tag: str, weather: Callable[[Proxy], None]) -> None:
    async with contained(gateway), proxied(gateway.port) as proxy:
        weather(proxy)
        read = await story(gateway, f"/v1/tools/numbered/stream?tag={tag}&count={COUNT}&_pool=broken", proxy.url)
        assert (read.numbers, (read.end or {})["status"]) == (list(range(1, COUNT + 1)), "ok")


async def test_a_client_that_is_cut_off_or_stops_sending_has_left(gateway: Served, tag: str) -> None:
    """HTTP has no half-closed clients here: who says that nothing more comes is taken at its word, as by every uvicorn."""
    async with contained(gateway):
        for number, break_it in enumerate((Proxy.cut, lambda proxy: proxy.up.end())):
            name = f"{tag}-{number}"
            async with proxied(gateway.port) as proxy:
                reading = asyncio.create_task(story(gateway, f"/v1/tools/endless_async/stream?tag={name}&_pool=broken", proxy.url))
                await until(lambda name=name: "start" in gateway.journal(name), "the start")
                break_it(proxy)
                await until(lambda name=name: "cleanup" in gateway.journal(name), "the tool's end")
                with contextlib.suppress(httpx.HTTPError):
                    await reading


async def test_a_client_whose_bytes_are_changed_is_refused_or_served_and_nobody_else_notices(gateway: Served, tag: str) -> None:
    async with contained(gateway):
        for every in (5, 17, 40, 90, 200):
            async with proxied(gateway.port) as proxy:
                proxy.up.corrupt_every = every
                async with gateway.http() as client:
                    with contextlib.suppress(httpx.HTTPError):
                        answer = await client.post(proxy.url + "/v1/tools/numbered/stream", json={"tag": tag, "count": 3})
                        assert answer.status_code < 500, answer.text


# to a worker


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[int]:
    """The port of a worker that somebody else runs."""
    ready = tmp_path / "ready"
    environment = {**os.environ, "E2E_DIRECTORY": str(tmp_path), "SNAKEPIT_READY_FILE": str(ready)}
    command = [sys.executable, "-m", "gateway.runtime", "--adapter", str(JOURNAL_ADAPTER), "--listen", "127.0.0.1:0", "--concurrency", "16"]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            wait_for(lambda: ready.exists() and ready.read_text().strip(), "the worker")
            yield int(ready.read_text().strip().rpartition(":")[2])
        finally:
            process.kill()


@pytest.fixture
async def far(remote: int, tmp_path: Path) -> AsyncIterator[tuple[Served, Proxy]]:
    """A gateway whose pool `far` is a worker behind a network, and that network."""
    directory = tmp_path / "gateway"
    directory.mkdir()
    async with proxied(remote) as proxy:
        settings = f"""
[runlog]
ttl_s = 2
[[pools]]
name = "{POOL}"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
[[pools]]
name = "far"
addresses = ["127.0.0.1:{proxy.port}"]
health_interval_s = 0.5
health_timeout_s = 1
health_misses = 2
"""
        gateway = Served(directory, (), settings, {})
        # In a thread: the proxy is ours to run meanwhile.
        await asyncio.to_thread(gateway.start)
        try:
            yield gateway, proxy
            await asyncio.to_thread(gateway.stop)
        finally:
            await asyncio.to_thread(gateway.kill)


@pytest.mark.parametrize("weather", [late, trickling])
async def test_a_worker_on_a_bad_line_loses_nothing(far: tuple[Served, Proxy], weather: Callable[[Proxy], None]) -> None:
    gateway, proxy = far
    weather(proxy)
    read = await story(gateway, f"/v1/tools/numbered/stream?tag=x&count={COUNT}&_pool=far")
    assert (read.numbers, (read.end or {})["status"]) == (list(range(1, COUNT + 1)), "ok")


BREAKS: dict[str, Callable[[Proxy], None]] = {
    "cut": Proxy.cut,
    "stalled": Proxy.stall,
    "the worker says no more": lambda proxy: proxy.down.end(),
    "the worker hears no more": lambda proxy: proxy.up.end(),
    "changed": lambda proxy: setattr(proxy.down, "corrupt_every", 11),
}


@pytest.mark.parametrize("kind", BREAKS)
async def test_a_broken_line_to_a_worker_is_told_and_mended_by_itself(far: tuple[Served, Proxy], kind: str) -> None:
    gateway, proxy = far
    async with gateway.http() as client, client.stream("GET", "/v1/tools/endless_async/stream?tag=x&_pool=far") as response:
        events = events_of(response)
        for _ in range(5):
            await anext(events)
        BREAKS[kind](proxy)
        end = [event async for event in events][-1].json()
    # What a changed byte says depends on the byte: a flag or the length of a message is the call's mistake, a frame's is the connection's.
    told = (
        {"/problems/worker-lost", "/problems/tool-error", "/problems/chunk-too-large"} if kind == "changed" else {"/problems/worker-lost"}
    )
    assert (end["status"], end["error"]["type"] in told) == ("error", True), end
    proxy.cut()
    await proxy.restore()
    await until(gateway.is_ready, "the worker to be back")
    assert (await story(gateway, "/v1/tools/numbered/stream?tag=x&count=9&_pool=far")).numbers == list(range(1, 10))
    async with contained(gateway):
        proxy.cut()
        await until(gateway.is_ready, "the worker to be back")


# to Valkey


async def until_ready(client: httpx.AsyncClient) -> None:
    """Ask without blocking: the way from the gateway to its log is our loop's."""
    async with asyncio.timeout(20):
        while (await client.get("/readyz")).json()["status"] != "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


VALKEY_BREAKS: dict[str, Callable[[Proxy], None]] = {
    **BREAKS,
    "late": late,
    "trickling": trickling,
}


@pytest.mark.timeout(120)
async def test_a_bad_line_to_the_log_costs_new_runs_only_and_heals(tmp_path: Path) -> None:
    """Streams that run go on through each of them; new ones are served, or refused as `log-unavailable`."""
    valkey = Valkey()
    async with proxied(valkey.port) as proxy:
        settings = f"""
[runlog]
url = "valkey://127.0.0.1:{proxy.port}"
lease_ttl_s = 20
[[pools]]
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
"""
        gateway = Served(tmp_path, (), settings, {})
        await asyncio.to_thread(gateway.start)
        try:
            total = 2500
            reading = asyncio.create_task(story(gateway, f"/v1/tools/paced/stream?tag=long&count={total}&interval_ms=3"))
            await until(lambda: "start" in gateway.journal("long"), "the start")
            async with gateway.http() as client:
                for kind, break_it in VALKEY_BREAKS.items():
                    break_it(proxy)
                    answer = await client.post(
                        "/v1/tools/numbered/stream", json={"tag": kind, "count": 2}, headers={"Accept": "application/json"}
                    )
                    if answer.status_code != 200:
                        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-unavailable"), (kind, answer.text)
                    proxy.cut()
                    await proxy.restore()
                    await until_ready(client)
                    answer = await client.post(
                        "/v1/tools/numbered/stream", json={"tag": kind, "count": 2}, headers={"Accept": "application/json"}
                    )
                    assert answer.status_code == 200, (kind, answer.text)
            read = await reading
            assert (read.numbers, (read.end or {})["status"]) == (list(range(1, total + 1)), "ok")
            await asyncio.to_thread(gateway.stop)
        finally:
            await asyncio.to_thread(gateway.kill)
            valkey.close()
