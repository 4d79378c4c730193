"""Two gateway processes on one log: whatever one of them executes, the other one serves, as if it were its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Iterator

import pytest

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import JOURNAL_ADAPTER, bridge, events_of, read_sse, until
from tests.e2e.pair import Pair, chunk_events, ended, first_chunk, paired, start, state
from tests.e2e.socketclient import joined
from tests.valkey import Valkey

STREAM = "/v1/tools/gated/stream"
# Pools that take one call at a time; the first one lets nobody wait.
NARROW = f"""
[[pools]]
name = "narrow"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 1
queue_limit = 0

[[pools]]
name = "queueing"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 1
"""


@pytest.fixture(scope="module", params=BUILDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    packages = packages_of(request.param)
    valkey = Valkey()
    with paired(valkey, tmp_path_factory.mktemp("pair"), NARROW, packages=packages) as pair:
        yield pair
    valkey.close()


# reading


async def test_replay_and_live_are_the_owners_bytes_in_every_format(pair: Pair, tag: str) -> None:
    a, b = pair
    run = await start(b, "held", tag=tag, count=3000, gate=1500)
    async with a.http() as client:
        accepts = ("text/event-stream", "application/x-ndjson", "application/json")
        reads = [asyncio.create_task(client.get(f"/v1/runs/{run}/events", headers={"Accept": accept})) for accept in accepts]
        reads += [asyncio.create_task(b.http().get(f"/v1/runs/{run}/events"))]
        await until(lambda: a.client.get(f"/v1/runs/{run}").json()["chunks"] == 1499, "what is there so far")
        async with joined(a) as socket:
            await socket.say("attach", id="a", payload={"run": run})
            await socket.hear_until("next")
            b.open_gate(tag, 1500)
            end = await socket.hear_until("complete", "error")
        sse, lines, whole, owner = await asyncio.gather(*reads)
        late = await client.get(f"/v1/runs/{run}/events")
    expected = [{"n": number} for number in range(1, 3001)]
    assert chunk_events(owner.content) == chunk_events(sse.content) == chunk_events(late.content)
    assert len(chunk_events(owner.content)) == 3000
    assert [line["data"] for line in map(json.loads, filter(None, lines.text.splitlines())) if "seq" in line] == expected
    assert whole.json()["chunks"] == expected
    assert socket.chunks("a") == [(f"{run}.{chunk['n']}", chunk) for chunk in expected]
    assert (end["payload"]["status"], end["payload"]["chunks"]) == ("ok", 3000)
    assert late.content.split(b"event: end\n")[1] == owner.content.split(b"event: end\n")[1]
    assert b.journal(tag) == ["start", "done", "finally", "cleanup"]
    assert a.journal(tag) == []


async def test_state_result_and_list_are_known_everywhere(pair: Pair, tag: str) -> None:
    a, b = pair
    run = await start(b, "gated", tag=tag, chunks=2)
    await until(lambda: a.client.get(f"/v1/runs/{run}").json()["chunks"] == 1, "the first chunk")
    there, here = await state(b, run), await state(a, run)
    assert {**here, "worker": None} == {**there, "worker": None}
    async with a.http() as client:
        pending = await client.get(f"/v1/runs/{run}/result")
        assert (pending.status_code, pending.json()["state"]) == (202, "running")
        waits = [asyncio.create_task(client.get(f"/v1/runs/{run}/result", headers={"Prefer": "wait=30"})) for _ in range(3)]
        running = (await client.get("/v1/runs?state=running&tool=gated")).json()["runs"]
        assert run in [each["run"] for each in running]
        b.open_gate(tag, 2)
        began = asyncio.get_running_loop().time()
        results = await asyncio.gather(*waits)
        assert asyncio.get_running_loop().time() - began < 10
        assert [result.status_code for result in results] == [200] * 3
        for result in results:
            assert [chunk["n"] for chunk in result.json()["chunks"]] == [1, 2]
        lists = [(await each.http().get("/v1/runs?limit=100")).json()["runs"] for each in pair]
    assert [each["run"] for each in lists[0]] == [each["run"] for each in lists[1]]
    there, here = await state(b, run), await state(a, run)
    assert here == there
    assert here["state"] == "ok"


async def test_a_unary_result_is_known_everywhere(pair: Pair) -> None:
    run = await start(pair.b, "whoami")
    async with pair.a.http() as client:
        result = await client.get(f"/v1/runs/{run}/result", headers={"Prefer": "wait=10"})
    assert result.json()["result"]["pid"] in pair.b.workers()


async def test_who_begins_at_the_owner_goes_on_at_the_other_gateway(pair: Pair, tag: str) -> None:
    a, b = pair
    query = f"?tag={tag}&chunks=4&_on_disconnect=grace:30s"
    async with b.http() as client, client.stream("GET", STREAM + query) as response:
        events = await first_chunk(response)
        b.open_gate(tag, 2)
        last = (await anext(events)).id
    b.open_gate(tag, 3, 4)
    async with a.http() as client:
        async with client.stream("GET", STREAM + query, headers={"Last-Event-ID": last}) as response:
            story = await read_sse(response)
        again = await client.get(STREAM + query, headers={"Last-Event-ID": f"{last.partition('.')[0]}.end"})
    assert (story.numbers, again.status_code) == ([3, 4], 204)
    assert story.start is not None
    assert (story.start["resumed"], story.start["from"]) == (True, 3)
    assert b.journal(tag) == ["start", "done", "finally", "cleanup"]
    assert a.journal(tag) == []


@pytest.mark.parametrize(("tool", "more"), [("numbered", ""), ("paced", "&interval_ms=1")])
async def test_a_reader_that_hops_between_gateways_gets_each_chunk_once(pair: Pair, tag: str, tool: str, more: str) -> None:
    """From the owner to the other one and back: a place that one of them gave is good at both, though the log lags by a moment."""
    count = 20_000 if tool == "numbered" else 400
    url = f"/v1/tools/{tool}/stream?tag={tag}&count={count}{more}&_on_disconnect=grace:30s"
    seen: list[int] = []
    last: dict[str, str] = {}
    kinds = set()
    for gateway in itertools.cycle((pair.b, pair.a)):
        async with gateway.http() as client, client.stream("GET", url, headers=last) as response:
            async for event in events_of(response):
                kinds.add(event.event)
                if event.event == "message":
                    seen.append(int(event.id.rpartition(".")[2]))
                    last = {"Last-Event-ID": event.id}
                    if seen[-1] % (count // 20) == 0:
                        break
            else:
                break
    assert seen == list(range(1, count + 1))
    assert "gap" not in kinds
    assert pair.b.journal(tag).count("start") == 1
    assert pair.a.journal(tag) == []


async def test_a_run_that_waits_says_so_on_both(pair: Pair, tag: str) -> None:
    a, b = pair
    blocker = await start(b, "gated", query="?_pool=queueing", tag=f"{tag}-blocker", chunks=2)
    run = await start(b, "numbered", query="?_pool=queueing", tag=tag, count=1)
    assert (await state(a, run))["state"] == "queued"
    async with a.http() as client, client.stream("GET", f"/v1/runs/{run}/events") as response:
        events = events_of(response)
        assert [(await anext(events)).event for _ in range(1)] == ["start"]
        status = await anext(events)
        assert (status.event, status.json()["state"], status.json()["position"]) == ("status", "queued", 1)
        b.open_gate(f"{tag}-blocker", 2)
        rest = [(event.event, event.json()) async for event in events]
    assert [kind for kind, _ in rest] == ["status", "message", "end"]
    assert (rest[0][1]["state"], rest[-1][1]["status"]) == ("running", "ok")
    await ended(a, blocker)


async def test_a_waiting_run_is_cancelled_at_the_other_gateway(pair: Pair, tag: str) -> None:
    a, b = pair
    blocker = await start(b, "gated", query="?_pool=queueing", tag=f"{tag}-blocker", chunks=2)
    run = await start(b, "numbered", query="?_pool=queueing", tag=tag, count=1)
    async with a.http() as client:
        assert (await client.delete(f"/v1/runs/{run}")).json()["state"] == "cancelled"
        assert (await client.delete(f"/v1/runs/{blocker}")).json()["state"] == "cancelled"
    assert b.journal(tag) == []


async def test_pages_of_the_list_lead_through_all_gateways_runs(pair: Pair, tag: str) -> None:
    runs = [await start(gateway, "whoami") for gateway in (*pair, *pair, pair.b)]
    for gateway in pair:
        found: list[str] = []
        following = "/v1/runs?limit=2&tool=whoami"
        while following:
            page = gateway.client.get(following).json()
            found += [each["run"] for each in page["runs"]]
            following = page["next"]
        assert found[:5] == runs[::-1]
        assert len(found) == len(set(found))
    async with pair.a.http() as client:
        wrong = await client.get("/v1/runs?cursor=nonsense")
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (400, "cursor")


async def test_unknown_runs_and_ends_are_what_they_are_on_one_gateway(pair: Pair, tag: str) -> None:
    unknown = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"
    run = await start(pair.b, "numbered", tag=tag, count=1)
    await ended(pair.b, run)
    async with pair.a.http() as client:
        assert (await client.get(f"/v1/runs/{run}/events", headers={"Last-Event-ID": f"{run}.end"})).status_code == 204
        assert (await client.get(f"/v1/tools/numbered/stream?tag=x&count=1&_from={run}.end")).status_code == 204
        for path in ("", "/events", "/result"):
            assert (await client.get(f"/v1/runs/{unknown}{path}")).json()["type"] == "/problems/run-not-found"
        assert (await client.delete(f"/v1/runs/{unknown}")).status_code == 404
        async with client.stream("GET", STREAM, headers={"Last-Event-ID": f"{unknown}.3"}) as response:
            story = await read_sse(response)
        assert (response.status_code, story.end and story.end["status"]) == (200, "expired")
        async with joined(pair.a) as socket:
            await socket.say("attach", id="a", payload={"last_event_id": f"{unknown}.3"})
            assert (await socket.hear())["payload"]["type"] == "/problems/run-expired"


# cancelling


@pytest.mark.parametrize("how", ["delete", "post", "socket"])
async def test_a_cancel_at_the_other_gateway_stops_the_tool(pair: Pair, tag: str, how: str) -> None:
    a, b = pair
    run = await start(b, "silent", tag=tag)
    await until(lambda: "start" in b.journal(tag), "the tool's start")
    async with a.http() as client:
        if how == "socket":
            async with joined(a) as socket:
                await socket.say("attach", id="a", payload={"run": run})
                await socket.hear_until("start")
                await socket.say("cancel", id="a")
                end = await socket.hear_until("complete", "error")
                assert end["payload"]["status"] == "cancelled"
        else:
            answer = await (client.delete(f"/v1/runs/{run}") if how == "delete" else client.post(f"/v1/runs/{run}/cancel"))
            assert (answer.status_code, answer.json()["state"], answer.json()["end"]["status"]) == (200, "cancelled", "cancelled")
            again = await (client.delete(f"/v1/runs/{run}") if how == "delete" else client.post(f"/v1/runs/{run}/cancel"))
            assert (again.status_code, again.json()) == (200, answer.json())
    await until(lambda: "cleanup" in b.journal(tag), "the tool's end")
    assert b.journal(tag) == ["start", "finally", "cleanup"]


async def test_many_cancels_at_once_are_all_answered_by_the_end(pair: Pair, tag: str) -> None:
    a, b = pair
    run = await start(b, "silent", tag=tag)
    async with a.http() as client:
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(client.delete(f"/v1/runs/{run}") for _ in range(10)))
        took_s = asyncio.get_running_loop().time() - began
    assert {answer.json()["state"] for answer in answers} == {"cancelled"}
    # Who waits in vain waits two seconds.
    assert took_s < 1.8
    assert not any(line.get("event") == "cancel not answered in time" for line in a.log_lines())


# readers elsewhere count


@pytest.mark.parametrize("policy", ["cancel", "grace:300ms"])
async def test_a_reader_elsewhere_keeps_a_run_alive_and_its_leaving_is_the_last_ones(pair: Pair, tag: str, policy: str) -> None:
    a, b = pair
    async with a.http() as theirs, b.http() as owners:
        async with owners.stream("GET", f"/v1/tools/endless/stream?tag={tag}&_on_disconnect={policy}") as response:
            owners_events = await first_chunk(response)
            run = response.headers["content-location"].split("/")[3]
            reading = theirs.stream("GET", f"/v1/runs/{run}/events?_from=live")
            events = await first_chunk(await reading.__aenter__())
            # It takes a moment until the owner has heard of the other one.
            for _ in range(20):
                await anext(events)
            assert (await anext(owners_events)).event == "message"
        # The owner has no reader any more; what it yields now, and it yields for longer than the grace, is for the other one.
        async with asyncio.timeout(20):
            for _ in range(120):
                assert (await anext(events)).event == "message"
        assert "finally" not in b.journal(tag)
        await reading.__aexit__(None, None, None)
    end = (await ended(b, run))["end"]
    assert (end["status"], "nobody came back" in end["error"]["detail"]) == ("cancelled", policy != "cancel")
    await until(lambda: "cleanup" in b.journal(tag), "the tool's end")
    assert b.journal(tag) == ["start", "finally", "cleanup"]


async def test_an_observer_elsewhere_keeps_nothing_alive(pair: Pair, tag: str) -> None:
    a, b = pair
    async with b.http() as owners, a.http() as theirs:
        async with owners.stream("GET", f"/v1/tools/endless/stream?tag={tag}") as response:
            owners_events = await first_chunk(response)
            run = response.headers["content-location"].split("/")[3]
            reading = theirs.stream("GET", f"/v1/runs/{run}/events?_role=observer")
            events = await first_chunk(await reading.__aenter__())
            assert (await anext(owners_events)).event == "message"
        last = [event async for event in events][-1]
        assert (last.event, last.json()["status"]) == ("end", "cancelled")
        await reading.__aexit__(None, None, None)


# idempotency


async def test_one_key_is_one_run_on_both(pair: Pair, tag: str) -> None:
    key = {"Idempotency-Key": tag}
    body = {"tag": tag, "count": 100}
    async with pair.a.http() as first, pair.b.http() as second:
        clients = [first, second] * 8
        answers = await asyncio.gather(*(client.post("/v1/tools/numbered/runs", json=body, headers=key) for client in clients))
        assert [answer.status_code for answer in answers] == [202] * 16
        assert len({answer.json()["run"] for answer in answers}) == 1
        streams = [await client.post("/v1/tools/numbered/stream", json=body, headers=key) for client in (first, second)]
        run = answers[0].json()["run"]
        # Another request than the background start: it says so, as on one gateway.
        assert {stream.status_code for stream in streams} == {200}
        assert len(chunk_events(streams[0].content)) == 100
        assert chunk_events(streams[0].content) == chunk_events(streams[1].content)
        assert all(f"id: {run}.1\n".encode() in stream.content for stream in streams)
        for client in (first, second):
            other = await client.post("/v1/tools/numbered/runs", json={**body, "count": 7}, headers=key)
            assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-conflict")
    assert pair.a.journal(tag).count("start") + pair.b.journal(tag).count("start") == 1


@pytest.mark.parametrize("second", ["same", "other"])
async def test_a_refused_start_leaves_its_key_free(pair: Pair, tag: str, second: str) -> None:
    a, b = pair
    key = {"Idempotency-Key": tag}
    path = "/v1/tools/gated/runs?_pool=narrow"
    blocker = await start(b, "gated", query="?_pool=narrow", tag=f"{tag}-blocker", chunks=2)
    body = {"tag": tag, "chunks": 1}
    async with b.http() as client:
        refused = await asyncio.gather(*(client.post(path, json=body, headers=key) for _ in range(5)))
        assert {(answer.status_code, answer.json()["type"]) for answer in refused} == {(503, "/problems/pool-saturated")}
        b.open_gate(f"{tag}-blocker", 2)
        await ended(b, blocker)
        await until(b.is_idle, "a free worker")
    run = await start(b if second == "same" else a, "gated", key, "?_pool=narrow", **body)
    assert (await ended(b, run))["state"] == "ok"
    async with a.http() as client:
        listed = [each["run"] for each in (await client.get("/v1/runs?limit=3")).json()["runs"]]
    assert listed[:2] == [run, blocker]


# sessions


async def test_a_session_is_known_on_both(pair: Pair, tag: str) -> None:
    a, b = pair
    async with a.http() as first, b.http() as second:
        made = await first.post("/v1/sessions", json={"id": "s-known", "metadata": {"who": "me"}})
        assert made.status_code == 201
        there = (await second.get("/v1/sessions/s-known")).json()
        assert (there["metadata"], there["created_at"]) == ({"who": "me"}, made.json()["created_at"])
        again = await second.post("/v1/sessions", json={"id": "s-known", "metadata": {"who": "other"}})
        assert (again.status_code, again.json()["metadata"]) == (200, {"who": "me"})
        assert again.json()["created_at"] == made.json()["created_at"]
        assert (await second.delete("/v1/sessions/s-known")).status_code == 204
        assert [(await client.get("/v1/sessions/s-known")).status_code for client in (first, second)] == [404, 404]


async def test_a_strict_session_whose_worker_is_the_other_gateways_own_is_told_so(pair: Pair, tag: str) -> None:
    a, b = pair
    async with a.http() as first, b.http() as second:
        home = await second.post("/v1/tools/whoami/call?_session=s-strict", json={})
        assert home.json()["result"]["pid"] in b.workers()
        for affinity in ("strict_queue", "strict_fail_fast"):
            again = await second.post(f"/v1/tools/whoami/call?_session=s-strict&_affinity={affinity}", json={})
            assert again.json()["result"] == home.json()["result"]
            refused = await first.post(f"/v1/tools/whoami/call?_session=s-strict&_affinity={affinity}", json={})
            assert (refused.status_code, refused.json()["type"]) == (409, "/problems/session-worker-unavailable")
        hinted = await first.post("/v1/tools/whoami/call?_session=s-strict", json={})
        assert hinted.json()["result"]["pid"] in a.workers()


async def test_a_strict_session_does_not_take_a_workers_successor_for_it(pair: Pair) -> None:
    """The log knows the worker by its name, which the process that replaces it has as well."""
    b = pair.b
    async with b.http() as client:
        path = "/v1/tools/whoami/call?_pool=queueing&_session=s-lost&_affinity=strict_queue"
        home = (await client.post(path, json={})).json()["result"]["pid"]
        os.kill(home, signal.SIGKILL)
        await until(lambda: any(worker["restarts"] for worker in b.pools()["queueing"]["workers"]) and b.is_ready(), "another worker")
        lost = await client.post(path, json={})
        assert (lost.status_code, lost.json()["type"]) == (409, "/problems/session-worker-unavailable")


async def test_a_session_that_grpc_began_on_one_goes_on_at_the_other(pair: Pair) -> None:
    async with bridge(pair.a) as first, bridge(pair.b) as second:
        unknown = await second.Heartbeat(pb.HeartbeatRequest(session_id="s-grpc"))
        await first.InitializeSession(pb.InitializeSessionRequest(session_id="s-grpc", metadata={"who": "me"}))
        known = await second.GetSession(pb.GetSessionRequest(session_id="s-grpc"))
        answer = await second.ExecuteTool(pb.ExecuteToolRequest(session_id="s-grpc", tool_name="whoami"))
    assert (unknown.session_valid, dict(known.metadata), answer.success) == (False, {"who": "me"}, True)
