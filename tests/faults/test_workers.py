"""Workers that are killed, stand still, or die again and again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Served, Story, events_of, read_sse, until
from tests.faults.bystanders import bystanders
from tests.faults.containment import contained

POOL = "_pool=broken"


async def story(gateway: Served, path: str) -> Story:
    async with gateway.http() as client, client.stream("GET", path) as response:
        assert response.status_code == 200, await response.aread()
        return await read_sse(response)


async def whoami(gateway: Served) -> int:
    """Return the process of the worker that answers; a call that meets a death which is still news is told, and asked again."""
    async with gateway.http() as client:
        answer = await client.post(f"/v1/tools/whoami/call?{POOL}", json={})
        while answer.status_code == 503 and answer.json()["type"] == "/problems/worker-lost":
            answer = await client.post(f"/v1/tools/whoami/call?{POOL}", json={})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["result"]["pid"])


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_a_killed_worker_fails_its_own_streams_only_and_is_replaced(gateway: Served, tag: str) -> None:
    """Its sibling in the same pool goes on, and so does everybody else."""
    async with contained(gateway), gateway.http() as client, contextlib.AsyncExitStack() as stack:
        streams: dict[int, list[Any]] = {}
        for number in range(20):
            path = f"/v1/tools/gated/stream?tag={tag}-{number}&chunks=2&{POOL}"
            events = events_of(await stack.enter_async_context(client.stream("GET", path)))
            while (event := await anext(events)).event != "message":
                pass
            streams.setdefault(event.json()["pid"], []).append((number, events))
        victim, sibling = streams
        os.kill(victim, signal.SIGKILL)
        for _, events in streams[victim]:
            end = [event async for event in events][-1].json()
            assert (end["status"], end["error"]["type"], end["error"]["retryable"]) == ("error", "/problems/worker-lost", True)
        for number, events in streams[sibling]:
            gateway.open_gate(f"{tag}-{number}", 2)
            assert [event.event async for event in events] == ["message", "end"]
        await until(gateway.is_ready, "the successor")
    assert victim not in gateway.workers()


async def test_a_pool_whose_workers_are_killed_again_and_again_comes_back(gateway: Served) -> None:
    async with contained(gateway):
        for _ in range(4):
            os.kill(await whoami(gateway), signal.SIGKILL)
        await until(gateway.is_ready, "all workers")
        assert (await story(gateway, f"/v1/tools/numbered/stream?tag=x&count=100&{POOL}")).numbers == list(range(1, 101))


async def test_a_worker_that_stands_still_for_good_is_replaced_and_its_streams_are_told(gateway: Served, tag: str) -> None:
    async with contained(gateway), gateway.http() as client:
        async with client.stream("GET", f"/v1/tools/gated/stream?tag={tag}&{POOL}") as response:
            events = events_of(response)
            victim = [await anext(events), await anext(events)][-1].json()["pid"]
            with standing_still(victim):
                end = [event async for event in events][-1].json()
                assert (end["status"], end["error"]["type"]) == ("error", "/problems/worker-lost")
                # Killed, not asked: it would not hear.
                await until(lambda: victim not in gateway.workers(), "the end of the process")
        assert await whoami(gateway) != victim


async def test_a_worker_that_stands_still_for_a_moment_loses_nothing(gateway: Served, tag: str) -> None:
    async with contained(gateway):
        reading = asyncio.create_task(story(gateway, f"/v1/tools/paced/stream?tag={tag}&count=200&{POOL}"))
        await until(lambda: "start" in gateway.journal(tag), "the start")
        victim = next(pid for pid in gateway.workers() if pid == pid_of(gateway, tag))
        async with bystanders(gateway) as others:
            with standing_still(victim):
                # As long as others take to go on: shorter than two missed health checks.
                await others.go_on()
        read = await reading
        assert read.numbers == list(range(1, 201))
        assert read.end is not None
        assert read.end["status"] == "ok"
    assert victim in gateway.workers()


@pytest.mark.parametrize("tool", ["endless", "endless_async", "silent"])
async def test_a_cancel_of_what_a_dead_worker_ran_is_no_mystery(gateway: Served, tag: str, tool: str) -> None:
    """The client leaves in the moment in which the worker dies: its place is free again, whichever came first."""
    async with contained(gateway), gateway.http() as client:
        async with client.stream("GET", f"/v1/tools/{tool}/stream?tag={tag}&{POOL}"):
            await until(lambda: "start" in gateway.journal(tag), "the start")
            os.kill(pid_of(gateway, tag), signal.SIGKILL)
        await until(lambda: gateway.pools()["broken"]["in_flight"] == 0, "free places")


def pid_of(gateway: Served, tag: str) -> int:
    """Return which process has run the tool with this tag."""
    lines = (gateway.directory / "journal").read_text().splitlines()
    return next(int(entry["pid"]) for entry in map(json.loads, reversed(lines)) if entry["tag"] == tag)
