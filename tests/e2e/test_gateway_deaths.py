"""Two gateways on one log, of which something dies: the owner of a run, who reads it, the log itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import Served, events_of, read_sse, until
from tests.e2e.pair import Pair, ended, first_chunk, paired, start, state
from tests.e2e.socketclient import joined
from tests.valkey import Valkey

pytestmark = pytest.mark.timeout(120)

# The lease, the time in which it must stay lapsed, and two looks, in seconds; and what a busy machine adds.
DEATH_S = 1.5 + 2.0 + 2 * 1.1
SLOW_S = 6.0


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own."""
    valkey = Valkey()
    yield valkey
    valkey.close()


@pytest.fixture
def pair(valkey: Valkey, tmp_path: Path) -> Iterator[Pair]:
    with paired(valkey, tmp_path) as pair:
        yield pair


def die(gateway: Served) -> float:
    """Kill a gateway, as the kernel would; return when."""
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.process.wait()
    return asyncio.get_running_loop().time()


def since(moment: float) -> float:
    return asyncio.get_running_loop().time() - moment


async def exhaust(events: AsyncIterator[Any]) -> None:
    async for _ in events:
        pass


async def follow(gateway: Served, run: str, events: list[Any]) -> None:
    """Read a run's events into a list that the test looks at meanwhile."""
    async with gateway.http() as client, client.stream("GET", f"/v1/runs/{run}/events", timeout=60) as response:
        async for event in events_of(response):
            events += (event,)


async def read(gateway: Served, path: str, headers: dict[str, str] | None = None) -> Any:
    async with gateway.http() as client, client.stream("GET", path, headers=headers, timeout=60) as response:
        return await read_sse(response)


# the owner dies


async def test_an_owners_death_ends_its_runs_for_all_readers_after_everything_that_was_logged(pair: Pair, tag: str) -> None:
    a, b = pair
    run = await start(b, "held", tag=tag, count=1000, gate=501)
    waiting = asyncio.create_task(a.http().get(f"/v1/runs/{run}/result", headers={"Prefer": "wait=30"}, timeout=60))
    early = asyncio.create_task(read(a, f"/v1/runs/{run}/events"))
    await until(lambda: a.client.get(f"/v1/runs/{run}").json()["chunks"] == 500, "all chunks in the log")
    async with joined(a) as socket:
        await socket.say("attach", id="a", payload={"run": run})
        while len(socket.chunks("a")) < 500:
            await socket.hear()
        died = die(b)
        late = asyncio.create_task(read(a, f"/v1/runs/{run}/events"))
        error = await socket.hear_until("complete", "error")
        assert since(died) < DEATH_S + SLOW_S
    assert error["type"] == "error"
    for story in await asyncio.gather(early, late):
        assert story.numbers == list(range(1, 501))
        assert (story.end["status"], story.end["chunks"]) == ("error", 500)
        assert (story.end["error"]["code"], story.end["error"]["type"]) == ("UNAVAILABLE", "/problems/owner-lost")
    assert (await waiting).status_code == 503
    known = await state(a, run)
    assert (known["state"], known["end"]["error"]["code"]) == ("error", "UNAVAILABLE")
    async with a.http() as client:
        again = await client.get(f"/v1/runs/{run}/events", headers={"Last-Event-ID": f"{run}.end"})
        cancelled = await client.delete(f"/v1/runs/{run}")
    assert (again.status_code, cancelled.json()["state"]) == (204, "error")
    await until(lambda: not b.processes(), "the dead gateway's workers to go")


async def test_a_key_of_a_lost_run_still_names_it(pair: Pair, tag: str) -> None:
    a, b = pair
    key = {"Idempotency-Key": tag}
    run = await start(b, "silent", key, tag=tag)
    die(b)
    assert await start(a, "silent", key, tag=tag) == run
    assert (await ended(a, run))["state"] == "error"
    assert await start(a, "silent", key, tag=tag) == run
    assert a.journal(tag) == []


@pytest.mark.parametrize("tool", ["endless_async", "silent"])
async def test_an_owner_that_was_away_too_long_gives_its_runs_up(pair: Pair, tag: str, tool: str) -> None:
    a, b = pair
    async with b.http() as client, client.stream("GET", f"/v1/tools/{tool}/stream?tag={tag}", timeout=60) as response:
        run = response.headers["content-location"].split("/")[3]
        reading = asyncio.create_task(read_sse(response))
        await until(lambda: "start" in b.journal(tag), "the tool's start")
        os.kill(b.pid, signal.SIGSTOP)
        try:
            story = await read(a, f"/v1/runs/{run}/events")
        finally:
            os.kill(b.pid, signal.SIGCONT)
        own = await reading
    assert story.end["error"]["type"] == own.end["error"]["type"] == "/problems/owner-lost"
    await until(lambda: "cleanup" in b.journal(tag), "the tool's end")
    assert b.journal(tag) == ["start", "finally", "cleanup"]
    assert (await state(b, run))["state"] == (await state(a, run))["state"] == "error"
    # And it is a gateway among others again.
    run = await start(b, "numbered", tag=f"{tag}-again", count=3)
    assert (await ended(a, run))["state"] == "ok"


# a reader's gateway dies


@pytest.mark.parametrize("policy", ["cancel", "grace:200ms"])
async def test_the_readers_of_a_dead_gateway_have_left(pair: Pair, tag: str, policy: str) -> None:
    a, b = pair
    run = await start(b, "endless_async", query=f"?_on_disconnect={policy}", tag=tag)
    async with a.http() as client, client.stream("GET", f"/v1/runs/{run}/events") as response:
        events = await first_chunk(response)
        for _ in range(20):
            await anext(events)
        died = die(a)
        with pytest.raises(httpx.HTTPError):
            await exhaust(events)
    end = (await ended(b, run))["end"]
    assert since(died) < DEATH_S + SLOW_S
    assert (end["status"], "reader left" in end["error"]["detail"]) == ("cancelled", True)
    await until(lambda: "cleanup" in b.journal(tag), "the tool's end")


# the log dies


async def test_without_the_log_running_streams_go_on_and_new_runs_are_refused(pair: Pair, valkey: Valkey, tag: str) -> None:
    a, b = pair
    async with b.http() as client, client.stream("GET", f"/v1/tools/held/stream?tag={tag}&count=2000&gate=1001") as response:
        events = await first_chunk(response)
        run = response.headers["content-location"].split("/")[3]
        seen = [1]
        while seen[-1] < 1000:
            seen.append((await anext(events)).json()["n"])
        valkey.kill()
        for gateway in pair:
            await until(lambda g=gateway: g.client.get("/readyz").json()["runlog"] == "unavailable", "it to be noticed")
            ready = gateway.client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            for path in ("/v1/tools/numbered/runs", "/v1/tools/numbered/stream"):
                refused = gateway.client.post(path, json={"tag": "refused", "count": 1})
                assert (refused.status_code, refused.json()["type"]) == (503, "/problems/log-unavailable")
                assert int(refused.headers["retry-after"]) >= 1
            assert gateway.client.get("/v1/runs/r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X").status_code == 503
            async with joined(gateway) as socket:
                await socket.say("subscribe", id="a", payload={"tool": "numbered", "args": {"tag": "refused", "count": 1}})
                assert (await socket.hear())["payload"]["type"] == "/problems/log-unavailable"
        # The owner's own runs need no log.
        assert (await state(b, run))["chunks"] == 1000
        b.open_gate(tag, 1001)
        last = None
        async for event in events:
            last = event
            if event.event == "message":
                seen.append(event.json()["n"])
    assert seen == list(range(1, 2001))
    assert (last is not None and last.json()["status"]) == "ok"
    valkey.restart()
    restarted = asyncio.get_running_loop().time()
    for gateway in pair:
        await until(lambda g=gateway: g.client.get("/readyz").json()["runlog"] == "available", "the log to be back")
    assert since(restarted) < SLOW_S
    assert (await ended(b, await start(a, "numbered", tag=f"{tag}-again", count=1)))["state"] == "ok"
    # What ended while the log was away is told to it, too.
    await until(lambda: a.client.get(f"/v1/runs/{run}").status_code == 200, "the end's way into the log")
    assert (await state(a, run))["state"] == "ok"
    assert b.journal("refused") == a.journal("refused") == []


async def test_a_log_that_stood_still_is_caught_up_with_and_nothing_is_missing(pair: Pair, valkey: Valkey, tag: str) -> None:
    a, b = pair
    run = await start(b, "held", tag=tag, count=2000, gate=1001)
    events: list[Any] = []
    following = asyncio.create_task(follow(a, run, events))
    await until(lambda: sum(event.event == "message" for event in events) == 1000, "half of it")
    async with valkey.paused():
        b.open_gate(tag, 1001)
        await until(lambda: "done" in b.journal(tag), "the tool to go on")
        refused = await asyncio.gather(*(gateway.http().post("/v1/tools/whoami/call", json={}) for gateway in pair))
        assert {(answer.status_code, answer.json()["type"]) for answer in refused} == {(503, "/problems/log-unavailable")}
        assert (await state(b, run))["state"] == "ok"
        assert not following.done()
    await asyncio.wait_for(following, 30)
    numbers = [int(event.id.rpartition(".")[2]) for event in events if event.event == "message"]
    assert (numbers, events[-1].json()["status"]) == (list(range(1, 2001)), "ok")
    for gateway in pair:
        await until(lambda g=gateway: g.client.get("/readyz").json()["status"] == "ready", "the log to be back")
    assert (await ended(a, await start(b, "numbered", tag=f"{tag}-again", count=1)))["state"] == "ok"


async def test_followers_of_a_run_see_a_gap_where_the_log_lost_something(pair: Pair, valkey: Valkey, tag: str) -> None:
    a, b = pair
    run = await start(b, "held", tag=tag, count=1000, gate=501)
    over = await start(b, "numbered", tag=f"{tag}-over", count=1)
    await ended(b, over)
    events: list[Any] = []

    following = asyncio.create_task(follow(a, run, events))
    await until(lambda: sum(event.event == "message" for event in events) == 500, "half of it")
    valkey.restart()
    await until(lambda: a.client.get(f"/v1/runs/{run}").status_code == 200, "the record to be made again")
    b.open_gate(tag, 501)
    await asyncio.wait_for(following, 30)
    numbers = [int(event.id.rpartition(".")[2]) for event in events if event.event == "message"]
    assert (numbers, events[-1].json()["status"]) == (list(range(1, 1001)), "ok")
    # Who comes now finds what was written since, and is told what is missing; on a busy machine the log may be away once more.
    await until(lambda: a.client.get(f"/v1/runs/{run}/result").status_code == 200, "the log to answer for it")
    late = await read_gaps(a, run)
    assert late == ([(1, 500)], list(range(501, 1001)), "ok")
    # A run that was over is lost with the log, but for its owner.
    assert [each.client.get(f"/v1/runs/{over}").status_code for each in pair] == [404, 200]


async def read_gaps(gateway: Served, run: str) -> tuple[list[tuple[int, int]], list[int], str]:
    """Return the gaps, the numbers and the status of the end of a run."""
    gaps, numbers, status = [], [], ""
    async with gateway.http() as client, client.stream("GET", f"/v1/runs/{run}/events") as response:
        assert response.status_code == 200, await response.aread()
        async for event in events_of(response):
            if event.event == "gap":
                gaps.append((event.json()["from"], event.json()["to"]))
            elif event.event == "message":
                numbers.append(int(event.id.rpartition(".")[2]))
            elif event.event == "end":
                status = event.json()["status"]
    return gaps, numbers, status


async def test_a_follower_whose_run_is_lost_with_log_and_owner_is_told_so(pair: Pair, valkey: Valkey, tag: str) -> None:
    a, b = pair
    run = await start(b, "endless_async", tag=tag)
    events: list[Any] = []
    following = asyncio.create_task(follow(a, run, events))
    await until(lambda: len(events) > 5, "some chunks")
    die(b)
    valkey.restart()
    await asyncio.wait_for(following, 30)
    assert events[-1].json()["status"] == "expired"
    numbers = [int(event.id.rpartition(".")[2]) for event in events if event.event == "message"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert a.client.get(f"/v1/runs/{run}").status_code == 404


# a gateway stops well


async def test_a_graceful_stop_tells_the_others_and_leaves_nothing(pair: Pair, tag: str) -> None:
    a, b = pair
    run = await start(b, "silent", tag=tag)
    done = await start(b, "gated", tag=f"{tag}-done", chunks=2)
    reading = asyncio.create_task(read(a, f"/v1/runs/{run}/events"))
    finishing = asyncio.create_task(read(a, f"/v1/runs/{done}/events"))
    await until(lambda: {"start"} == set(b.journal(tag)) and b.journal(f"{tag}-done"), "the tools' start")
    stopping = asyncio.create_task(asyncio.to_thread(b.stop))
    await until(lambda: any("draining" in line.get("event", "") for line in b.log_lines()), "the drain")
    b.open_gate(f"{tag}-done", 2)
    await stopping
    story, finished = await reading, await finishing
    assert (story.end["status"], story.end["error"]["type"]) == ("shutdown", "/problems/shutting-down")
    assert (finished.numbers, finished.end["status"]) == ([1, 2], "ok")
    assert b.journal(tag) == ["start", "finally", "cleanup"]
    assert [(await state(a, each))["state"] for each in (run, done)] == ["shutdown", "ok"]


async def test_a_graceful_stop_cuts_those_who_read_the_other_gateways_runs(pair: Pair, tag: str) -> None:
    """Without an end: the run goes on, and they find it at the other gateway."""
    a, b = pair
    run = await start(b, "gated", query="?_on_disconnect=grace:30s", tag=tag, chunks=3)
    events: list[Any] = []

    following = asyncio.create_task(follow(a, run, events))
    collecting = asyncio.create_task(a.http().get(f"/v1/runs/{run}/events", headers={"Accept": "application/json"}, timeout=60))
    waiting = asyncio.create_task(a.http().get(f"/v1/runs/{run}/result", headers={"Prefer": "wait=30"}, timeout=60))
    await until(lambda: events and events[-1].event == "message", "the first chunk")
    async with joined(a) as socket:
        await socket.say("attach", id="a", payload={"run": run})
        await socket.hear_until("next")
        await asyncio.to_thread(a.stop)
        assert (await socket.hear_until("error", "complete"))["type"] == "error"
    for cut in (following, collecting):
        with pytest.raises(httpx.HTTPError):
            await cut
    assert ((await waiting).status_code, [event.event for event in events]) == (202, ["start", "message"])
    b.open_gate(tag, 2, 3)
    story = await read(b, f"/v1/runs/{run}/events", {"Last-Event-ID": events[-1].id})
    assert (story.numbers, story.end["status"]) == ([2, 3], "ok")
    assert b.journal(tag) == ["start", "done", "finally", "cleanup"]


async def test_a_stop_without_the_log_is_a_good_one(pair: Pair, valkey: Valkey, tag: str) -> None:
    await start(pair.b, "silent", tag=tag)
    valkey.kill()
    await asyncio.to_thread(pair.b.stop)
    assert pair.b.journal(tag) == ["start", "finally", "cleanup"]


async def test_without_a_log_from_the_start_a_gateway_says_so_and_waits_for_it(valkey: Valkey, tmp_path: Path, tag: str) -> None:
    valkey.kill()
    with paired(valkey, tmp_path) as (a, b):
        assert any(line.get("event") == "no shared log" for line in a.log_lines())
        assert a.client.get("/readyz").json()["status"] == "degraded"
        valkey.restart()
        await until(lambda: a.client.get("/readyz").json()["status"] == "ready", "the log")
        await until(lambda: b.client.get("/readyz").json()["status"] == "ready", "the log")
        assert (await ended(b, await start(a, "numbered", tag=tag, count=1)))["state"] == "ok"
