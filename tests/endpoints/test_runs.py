"""Runs as resources: background starts, results, lists, subscriptions with cursors, and idempotency keys."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from gateway.caller import ANONYMOUS
from gateway.codec.sse import SseEncoder
from gateway.errors import Code, GatewayError, ToolFailed
from tests.conftest import FakeCall, Running, Serve, until, within
from tests.endpoints.conftest import JSON, NDJSON, messages, problem, raw

COUNT = "/v1/tools/count/stream"
RUNS = "/v1/tools/count/runs"
UNKNOWN = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"


def count_to_three(call: FakeCall) -> None:
    call.send(1, 2)
    call.send(3)
    call.end()


async def started(running: Running, path: str = RUNS, **options: Any) -> dict[str, Any]:
    response = await running.client.post(path, **options)
    assert response.status_code == 202, response.text
    document: dict[str, Any] = response.json()
    assert response.headers["location"] == document["links"]["self"] == f"/v1/runs/{document['run']}"
    return document


async def ended(running: Running, **options: Any) -> str:
    """Start a run in the background, play it with the pool's script, and return its id when it has ended."""
    running.pool.script = running.pool.script or count_to_three
    run: str = (await started(running, **options))["run"]
    await until(lambda: running.gateway.hub.get(run, ANONYMOUS).ended)
    return run


def data_of(response: httpx.Response) -> list[Any]:
    return [data for name, data in messages(response.content) if name == "message"]


# in the background


async def test_background_run_goes_on_without_anybody(running: Running) -> None:
    document = await started(running, json={"count": 3})
    assert (document["state"], document["on_disconnect"], document["tool"]) == ("running", "continue", "count")
    call = await running.pool.next_call()
    assert call.call.arguments == {"count": 3}
    count_to_three(call)
    events = messages((await running.client.get(document["links"]["events"])).content)
    assert [data for name, data in events if name == "message"] == [1, 2, 3]
    assert events[-1][1]["status"] == "ok"


async def test_background_run_in_the_queue_says_its_place(running: Running) -> None:
    running.pool.busy = True
    document = await started(running)
    assert (document["state"], document["queue"]) == ("queued", {"position": 1, "depth": 1})


async def test_background_run_of_a_unary_tool_has_its_result(running: Running) -> None:
    document = await started(running, "/v1/tools/add/runs", json={"a": 1, "b": 2})
    call = await running.pool.next_call()
    assert not call.call.streaming
    call.send(3)
    call.end({"note": "x"})
    result = (await running.client.get(document["links"]["result"])).json()
    assert (result["result"], result["metadata"]["note"]) == (3, "x")


async def test_background_run_of_a_tool_of_unknown_kind_streams(running: Running) -> None:
    await started(running, "/v1/tools/opaque/runs")
    assert (await running.pool.next_call()).call.streaming


async def test_background_run_may_name_another_policy(running: Running) -> None:
    document = await started(running, params={"_on_disconnect": "cancel"})
    call = await running.pool.next_call()
    call.send(1)
    async with running.client.stream("GET", document["links"]["events"]) as events:
        await anext(events.aiter_raw())
    await within(call.cancelled.wait())


@pytest.mark.parametrize(
    ("path", "options", "status", "slug"),
    [
        ("/v1/tools/nobody/runs", {}, 404, "tool-not-found"),
        (RUNS, {"json": {"count": "x"}}, 422, "invalid-arguments"),
        (RUNS, {"params": {"_from": "live"}}, 400, "invalid-option"),
        (RUNS, {"params": {"_role": "observer"}}, 400, "invalid-option"),
        (RUNS, {"params": {"count": "3"}}, 400, "invalid-option"),
        (RUNS, {"headers": {"Accept": "text/event-stream"}}, 406, "not-acceptable"),
    ],
)
async def test_background_start_that_cannot_be_starts_nothing(
    running: Running, path: str, options: dict[str, Any], status: int, slug: str
) -> None:
    problem(await running.client.post(path, **options), status, slug)
    assert running.pool.calls == []


async def test_background_start_that_the_pool_refuses_is_its_status(running: Running) -> None:
    running.pool.refusal = GatewayError("pool-saturated", "full", retry_after_s=2)
    response = await running.client.post(RUNS)
    problem(response, 503, "pool-saturated")
    assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream_that_is_preferred_async_is_a_background_run(running: Running, method: str) -> None:
    response = await running.client.request(method, COUNT, headers={"Prefer": "respond-async"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "respond-async")
    document = response.json()
    assert (response.headers["location"], document["on_disconnect"]) == (f"/v1/runs/{document['run']}", "continue")


async def test_wait_answers_with_the_result_when_the_run_ends_in_time(running: Running) -> None:
    request = asyncio.ensure_future(running.client.post(RUNS, headers={"Prefer": "wait=5"}))
    count_to_three(await running.pool.next_call())
    response = await within(request)
    assert (response.status_code, response.headers["preference-applied"]) == (200, "wait=5")
    assert response.json()["chunks"] == [1, 2, 3]


async def test_wait_that_is_over_answers_with_the_state(serve: Serve) -> None:
    async with serve(wait_limit_s=1) as running:
        response = await running.client.post(RUNS, headers={"Prefer": "wait=3600"})
        assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=1")
        assert response.json()["state"] == "running"
        assert not running.pool.calls[0].cancelled.is_set()


async def test_who_waits_and_leaves_leaves_nothing_behind_and_stops_nothing(running: Running) -> None:
    stream = await raw(running, "POST", RUNS, b"{}", Prefer="wait=50", Accept="application/json")
    call = await running.pool.next_call()
    run = running.gateway.hub.get(call.run_id, ANONYMOUS)
    await until(lambda: run._waiters)
    stream.cut()
    await until(lambda: not run._waiters)
    assert not call.cancelled.is_set()
    assert run.state == "running"


# results


async def test_result_before_the_end_is_202_with_the_state(running: Running) -> None:
    document = await started(running)
    response = await running.client.get(document["links"]["result"])
    assert (response.status_code, response.headers["retry-after"]) == (202, "1")
    assert response.json()["state"] == "running"


async def test_result_can_be_waited_for(running: Running) -> None:
    document = await started(running)
    request = asyncio.ensure_future(running.client.get(document["links"]["result"], headers={"Prefer": "wait=5"}))
    run = running.gateway.hub.get(document["run"], ANONYMOUS)
    await until(lambda: run._waiters)
    count_to_three(running.pool.calls[0])
    assert (await within(request)).json()["chunks"] == [1, 2, 3]


async def test_result_of_a_failure_is_its_problem_with_the_chunks_that_came(running: Running) -> None:
    def script(call: FakeCall) -> None:
        call.send(1)
        call.fail(ToolFailed(Code.NOT_FOUND, "no file"))

    running.pool.script = script
    run = await ended(running)
    document = problem(await running.client.get(f"/v1/runs/{run}/result"), 404, "tool-error")
    assert (document["detail"], document["chunks"]) == ("no file", [1])


async def test_result_of_a_cancelled_run_is_its_problem(running: Running) -> None:
    run = (await started(running))["run"]
    await running.client.delete(f"/v1/runs/{run}")
    problem(await running.client.get(f"/v1/runs/{run}/result"), 499, "cancelled")


async def test_result_larger_than_the_limit_is_413(serve: Serve) -> None:
    async with serve(result_limit_bytes=100) as running:
        running.pool.script = lambda call: (call.send("x" * 200), call.end())  # type: ignore[assignment, func-returns-value]
        run = await ended(running)
        problem(await running.client.get(f"/v1/runs/{run}/result"), 413, "result-too-large")


async def test_result_can_be_had_again_and_again(running: Running) -> None:
    run = await ended(running)
    answers = [(await running.client.get(f"/v1/runs/{run}/result")).content for _ in range(3)]
    assert len(set(answers)) == 1


# lists


async def test_list_is_newest_first_in_pages_that_link_to_the_next(running: Running) -> None:
    runs = [await ended(running) for _ in range(5)]
    listed, url, pages = [], "/v1/runs?limit=2&tool=count", 0
    while url:
        response = await running.client.get(url)
        page = response.json()
        listed += [run["run"] for run in page["runs"]]
        pages += 1
        url = page["next"]
        assert response.headers.get("link") == (f'<{url}>; rel="next"' if url else None)
    assert pages == 3
    assert sorted(listed) == sorted(runs)
    assert listed == sorted(runs, reverse=True)


async def test_list_is_filtered_by_state_and_tool(running: Running) -> None:
    done = await ended(running)
    running.pool.script = None
    live = (await started(running))["run"]
    await started(running, "/v1/tools/add/runs", json={"a": 1, "b": 2})

    async def listed(**query: str) -> list[str]:
        return [run["run"] for run in (await running.client.get("/v1/runs", params=query)).json()["runs"]]

    assert await listed(state="ok") == [done]
    assert await listed(state="running", tool="count") == [live]
    assert await listed(tool="nobody") == []
    assert len(await listed()) == 3


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=", "state=sleeping", "cursor=5", "page=2", "_from=live", "limit=1&limit=2"]
)
async def test_list_with_a_wrong_parameter_is_400_that_names_it(running: Running, query: str) -> None:
    document = problem(await running.client.get(f"/v1/runs?{query}"), 400, "invalid-option")
    assert document["errors"][0]["field"] == query.partition("=")[0]


# subscriptions


@pytest.mark.parametrize(
    ("begins", "expected"), [("start", [1, 2, 3]), ("1", [2, 3]), ("0", [1, 2, 3]), ("3", []), ("99", []), ("live", [])]
)
async def test_from_says_where_the_events_begin(running: Running, begins: str, expected: list[int]) -> None:
    run = await ended(running)
    response = await running.client.get(f"/v1/runs/{run}/events", params={"_from": begins})
    assert data_of(response) == expected
    start = messages(response.content)[0][1]
    if begins == "start":
        assert "resumed" not in start
    else:
        assert (start["resumed"], start["from"]) == (True, 4 - len(expected))


async def test_from_may_be_an_event_id_on_either_url(running: Running) -> None:
    run = await ended(running)
    for path in (COUNT, f"/v1/runs/{run}/events"):
        assert data_of(await running.client.get(path, params={"_from": f"{run}.2"})) == [3]
        assert (await running.client.get(path, params={"_from": f"{run}.end"})).status_code == 204
    assert len(running.pool.calls) == 1


async def test_last_event_id_goes_before_from(running: Running) -> None:
    """An EventSource reconnects to the URL that it was made with."""
    run = await ended(running)
    response = await running.client.get(f"/v1/runs/{run}/events", params={"_from": "live"}, headers={"Last-Event-ID": f"{run}.1"})
    assert data_of(response) == [2, 3]


@pytest.mark.parametrize("headers", [{}, NDJSON, JSON])
async def test_live_reader_gets_what_comes(running: Running, headers: dict[str, str]) -> None:
    document = await started(running)
    call = await running.pool.next_call()
    call.send("before")
    run = running.gateway.hub.get(document["run"], ANONYMOUS)
    request = asyncio.ensure_future(running.client.get(document["links"]["events"], params={"_from": "live"}, headers=headers))
    await until(lambda: "1 readers" in repr(run))
    call.send("after")
    call.end()
    text = (await within(request)).text
    assert ("before" in text, "after" in text) == (False, True)


async def test_observer_neither_keeps_the_run_alive_nor_slows_it(serve: Serve) -> None:
    async with serve(reader_lag_bytes=20_000) as running, running.client.stream("GET", COUNT) as subscriber:
        call = await running.pool.next_call()
        call.send(0)
        url = subscriber.headers["content-location"]
        observer = await raw(running, "GET", url + "?_role=observer", receive_buffer_bytes=4096)
        await observer.until(b"data: 0\n")
        lines = subscriber.aiter_lines()
        for number in range(1, 301):
            call.send("x" * 20_000 + str(number))
            async for line in lines:
                if line.endswith(f'{number}"'):
                    break
        # Three hundred times what a subscriber may lag, and the worker never had to wait for the observer.
        assert not call.paused
        await subscriber.aclose()
        await within(call.cancelled.wait())
        observer.cut()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("_from=end", "_from"),
        ("_from=-1", "_from"),
        ("_role=boss", "_role"),
        ("_overflow=drop", "_overflow"),
        ("_timeout_ms=5", "_timeout_ms"),
        ("_x=1", "_x"),
        ("count=3", "count"),
    ],
)
async def test_events_with_a_wrong_parameter_are_400_that_names_it(running: Running, query: str, field: str) -> None:
    run = await ended(running)
    document = problem(await running.client.get(f"/v1/runs/{run}/events?{query}"), 400, "invalid-option")
    assert document["errors"][0]["field"] == field


@pytest.mark.parametrize(("query", "headers"), [("_from=3", {}), ("", {"Last-Event-ID": f"{UNKNOWN}.3"}), (f"_from={UNKNOWN}.3", {})])
async def test_events_of_an_unknown_run_with_a_cursor_are_an_end_that_says_expired(
    running: Running, query: str, headers: dict[str, str]
) -> None:
    response = await running.client.get(f"/v1/runs/{UNKNOWN}/events?{query}", headers=headers)
    assert response.status_code == 200
    assert messages(response.content)[-1][1]["status"] == "expired"


@pytest.mark.parametrize(
    ("method", "suffix"),
    [("GET", ""), ("GET", "/events"), ("GET", "/events?_from=live"), ("GET", "/result"), ("DELETE", ""), ("POST", "/cancel")],
)
async def test_expired_run_is_410_and_then_404(serve: Serve, method: str, suffix: str) -> None:
    async with serve(runlog={"ttl_s": 0.2}) as running:
        run = await ended(running)
        hub = running.gateway.hub
        await until(lambda: hub.find_anybodys(run) is None)
        problem(await running.client.request(method, f"/v1/runs/{run}{suffix}"), 410, "run-expired")
        await until(lambda: not hub._runs.is_expired(run, ANONYMOUS))
        problem(await running.client.request(method, f"/v1/runs/{run}{suffix}"), 404, "run-not-found")


async def test_expired_run_on_a_streams_url_is_an_end_and_then_204(serve: Serve) -> None:
    async with serve(runlog={"ttl_s": 0.1}) as running:
        run = await ended(running)
        await until(lambda: running.gateway.hub.find_anybodys(run) is None)
        response = await running.client.get(COUNT, headers={"Last-Event-ID": f"{run}.2"})
        assert (response.status_code, messages(response.content)[-1][1]["status"]) == (200, "expired")
        assert (await running.client.get(COUNT, headers={"Last-Event-ID": f"{run}.end"})).status_code == 204


# fan-out


async def test_two_viewers_and_a_late_joiner_see_the_same_bytes(running: Running) -> None:
    document = await started(running)
    call = await running.pool.next_call()
    run = running.gateway.hub.get(document["run"], ANONYMOUS)
    viewers = [asyncio.ensure_future(running.client.get(document["links"]["events"])) for _ in range(2)]
    await until(lambda: "2 readers" in repr(run))
    for number in range(20):
        call.send({"n": number}, "ü\u2028")
    late = asyncio.ensure_future(running.client.get(document["links"]["events"]))
    await until(lambda: "3 readers" in repr(run))
    call.send("last")
    call.end()
    texts = [(await within(request)).content for request in (*viewers, late)]
    assert len(set(texts)) == 1
    assert len(data_of(await running.client.get(document["links"]["events"]))) == 41


async def test_a_batch_is_encoded_once_for_all_readers_of_a_format(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    original = SseEncoder.encode_chunks
    monkeypatch.setattr(SseEncoder, "encode_chunks", lambda self, chunks: (encoded.append(chunks.first), original(self, chunks))[1])
    document = await started(running)
    call = await running.pool.next_call()
    run = running.gateway.hub.get(document["run"], ANONYMOUS)
    viewers = [asyncio.ensure_future(running.client.get(document["links"]["events"])) for _ in range(10)]
    await until(lambda: "10 readers" in repr(run))
    await until(lambda: all(reader._started is None for reader in run._readers))
    for number in range(5):
        call.send(number)
        await asyncio.sleep(0)
    call.end()
    texts = {(await within(request)).content for request in viewers}
    assert len(texts) == 1
    assert len(encoded) <= 2 * 5  # once, and again at most for the readers whose status line was still held back


# leaving and lagging, over real connections


async def test_grace_lets_a_client_come_back_by_its_last_event_id(running: Running) -> None:
    async with running.client.stream("GET", COUNT, params={"_on_disconnect": "grace:30s"}) as first:
        call = await running.pool.next_call()
        call.send(1, 2)
        text = b""
        async for part in first.aiter_raw():
            text += part
            if b"data: 2\n" in text:
                break
        run = first.headers["content-location"].split("/")[3]
    await until(lambda: "0 readers" in repr(running.gateway.hub.get(run, ANONYMOUS)))
    call.send(3)
    request = asyncio.ensure_future(
        running.client.get(COUNT, params={"_on_disconnect": "grace:30s"}, headers={"Last-Event-ID": f"{run}.2"})
    )
    await until(lambda: "1 readers" in repr(running.gateway.hub.get(run, ANONYMOUS)))
    call.send(4)
    call.end()
    assert data_of(await within(request)) == [3, 4]
    assert len(running.pool.calls) == 1
    assert messages(text)[0][1]["on_disconnect"] == "grace:30s"


async def test_grace_that_is_over_cancels(running: Running) -> None:
    async with running.client.stream("GET", COUNT, params={"_on_disconnect": "grace:100ms"}) as first:
        call = await running.pool.next_call()
        call.send(1)
        await anext(first.aiter_raw())
    await within(call.cancelled.wait())


async def test_grace_longer_than_the_settings_allow_is_400(serve: Serve) -> None:
    async with serve(grace_limit_s=10) as running:
        document = problem(await running.client.get(COUNT, params={"_on_disconnect": "grace:11s"}), 400, "invalid-option")
        assert "to 10 s" in document["detail"]


async def fill(call: FakeCall, chunks: int = 2000) -> None:
    """More than a stalled connection takes, faster than anybody reads."""
    for number in range(chunks):
        call.send("x" * 10_000 + str(number))
        if number % 20 == 0:
            await asyncio.sleep(0)


async def test_a_reader_with_overflow_disconnect_is_cut_without_an_end_and_can_come_back(serve: Serve) -> None:
    async with serve(reader_lag_bytes=100_000) as running:
        stalled = await raw(running, "GET", COUNT + "?_overflow=disconnect&_on_disconnect=continue", receive_buffer_bytes=4096)
        call = await running.pool.next_call()
        run = running.gateway.hub.get(call.run_id, ANONYMOUS)
        await fill(call)
        await until(lambda: "0 readers" in repr(run))
        assert (call.paused, run.state) == (False, "running")
        received = await stalled.rest()
        assert b"event: end" not in received
        call.end()
        events = messages((await running.client.get(COUNT, headers={"Last-Event-ID": f"{run.id}.5"})).content)
        assert events[-1][1]["status"] == "ok"
        (gap,) = [data for name, data in events if name == "gap"]
        assert (gap["from"], gap["reason"]) == (6, "evicted")
        assert gap["to"] + 1 + sum(name == "message" for name, _ in events) == 2001


async def test_a_reader_with_overflow_latest_gets_a_gap_and_the_newest(serve: Serve) -> None:
    async with serve(reader_lag_bytes=100_000) as running:
        slow = await raw(running, "GET", COUNT + "?_overflow=latest", receive_buffer_bytes=4096)
        call = await running.pool.next_call()
        await fill(call)
        call.end()
        assert call.pauses == 0
        text = b""
        while not text.endswith(b"\r\n0\r\n\r\n"):
            text += await within(slow.reader.read(2**20))
        events = messages(b"".join(dechunked(text)))
        gaps = [data for name, data in events if name == "gap"]
        assert gaps
        assert {gap["reason"] for gap in gaps} == {"slow_consumer"}
        seen = sum(name == "message" for name, _ in events)
        assert seen + sum(gap["to"] - gap["from"] + 1 for gap in gaps) == 2000
        assert [data for name, data in events if name == "message"][-1].endswith("1999")
        assert events[-1][1]["chunks"] == 2000


def dechunked(response: bytes) -> list[bytes]:
    """The parts of a chunked body (RFC 9112 §7.1)."""
    rest = response.partition(b"\r\n\r\n")[2]
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return parts


# deadlines


@pytest.mark.parametrize(
    ("option", "status", "slug", "which"),
    [
        ("_timeout_ms", 504, "worker-timeout", "total"),
        ("_first_chunk_timeout_ms", 504, "worker-timeout", "first_chunk"),
        ("_idle_timeout_ms", 504, "worker-timeout", "idle"),
    ],
)
async def test_each_deadline_says_which_it_was(running: Running, option: str, status: int, slug: str, which: str) -> None:
    document = problem(await running.client.get(COUNT, params={option: "30"}), status, slug)
    assert document["deadline"] == which
    assert running.pool.calls[0].cancelled.is_set()


async def test_queue_deadline_has_a_problem_of_its_own(running: Running) -> None:
    running.pool.busy = True
    response = await running.client.get(COUNT, params={"_queue_timeout_ms": "30"})
    assert problem(response, 503, "queue-timeout")["deadline"] == "queue"
    assert response.headers["retry-after"] == "1"
    assert running.pool.tickets[0].cancelled.is_set()


async def test_start_says_the_deadlines_in_force(running: Running) -> None:
    running.pool.script = count_to_three
    params = {"_timeout_ms": "9000", "_queue_timeout_ms": "8000", "_first_chunk_timeout_ms": "7000", "_idle_timeout_ms": "6000"}
    start = messages((await running.client.get(COUNT, params=params)).content)[0][1]
    assert {name: value for name, value in start.items() if name.endswith("timeout_ms")} == {
        "timeout_ms": 9000,
        "queue_timeout_ms": 8000,
        "first_chunk_timeout_ms": 7000,
        "idle_timeout_ms": 6000,
    }


# idempotency keys


KEY = {"Idempotency-Key": "k-1"}


async def test_the_same_key_joins_the_same_run_on_every_url(running: Running) -> None:
    document = await started(running, json={"count": 3}, headers=KEY)
    assert (await started(running, json={"count": 3}, headers=KEY))["run"] == document["run"]
    request = asyncio.ensure_future(running.client.post(COUNT, json={"count": 3}, headers=KEY))
    run = running.gateway.hub.get(document["run"], ANONYMOUS)
    await until(lambda: "1 readers" in repr(run))
    count_to_three(running.pool.calls[0])
    assert data_of(await within(request)) == [1, 2, 3]
    assert data_of(await running.client.post(COUNT, json={"count": 3}, headers=KEY)) == [1, 2, 3]
    assert data_of(await running.client.post(COUNT, json={"count": 3}, headers=KEY, params={"_from": "2"})) == [3]
    observed = await running.client.post(COUNT, json={"count": 3}, headers=KEY, params={"_role": "observer"})
    assert data_of(observed) == [1, 2, 3]
    assert len(running.pool.calls) == 1


async def test_a_call_that_is_sent_again_gets_the_same_result(running: Running) -> None:
    requests = [asyncio.ensure_future(running.client.post("/v1/tools/add/call", json={"a": 1, "b": 2}, headers=KEY)) for _ in range(5)]
    call = await running.pool.next_call()
    run = running.gateway.hub.get(call.run_id, ANONYMOUS)
    await until(lambda: "5 readers" in repr(run))
    call.send(3)
    call.end()
    answers = [(await within(request)).json() for request in requests]
    answers.append((await running.client.post("/v1/tools/add/call", json={"b": 2, "a": 1}, headers=KEY)).json())
    assert [answer["result"] for answer in answers] == [3] * 6
    assert len(running.pool.calls) == 1


@pytest.mark.parametrize(
    ("path", "options"),
    [
        (COUNT, {"json": {"count": 4}}),
        (COUNT, {"json": {"count": 3}, "params": {"_session": "s"}}),
        ("/v1/tools/opaque/stream", {"json": {"count": 3}}),
    ],
)
async def test_the_same_key_with_another_request_is_422(running: Running, path: str, options: dict[str, Any]) -> None:
    await started(running, json={"count": 3}, headers=KEY)
    problem(await running.client.post(path, headers=KEY, **options), 422, "idempotency-conflict")
    assert len(running.pool.calls) == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_that_is_none_is_400(running: Running, key: str) -> None:
    document = problem(await running.client.post(COUNT, headers={"Idempotency-Key": key}), 400, "invalid-option")
    assert document["errors"][0]["field"] == "Idempotency-Key"
    assert running.pool.calls == []


@pytest.mark.parametrize(("query", "field"), [("_role=observer", "_role"), ("_from=5", "_from")])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_an_observer_or_a_place_starts_no_run(running: Running, query: str, field: str, method: str) -> None:
    response = await running.client.request(method, f"{COUNT}?{query}")
    assert response.status_code == 400
    if method != "HEAD":
        assert problem(response, 400, "invalid-option")["errors"][0]["field"] == field
    assert running.pool.calls == []


# HEAD


async def test_head_never_starts_or_joins_anything(running: Running) -> None:
    document = await started(running)
    run = running.gateway.hub.get(document["run"], ANONYMOUS)
    for headers in ({}, {"Prefer": "respond-async"}, {"Last-Event-ID": f"{run.id}.0"}, KEY):
        response = await running.client.head(COUNT, headers=headers)
        assert (response.status_code, response.content) == (200, b"")
    assert (await running.client.head(COUNT, headers={"Last-Event-ID": f"{run.id}.end"})).status_code == 204
    for path in (f"/v1/runs/{run.id}/events", f"/v1/runs/{run.id}", RUNS):
        assert (await running.client.head(path)).status_code == 405
    assert "0 readers" in repr(run)
    assert len(running.pool.calls) == 1


async def test_ndjson_and_sse_readers_of_one_run_see_the_same_values(running: Running) -> None:
    run = await ended(running)
    lines = [orjson.loads(line) for line in (await running.client.get(f"/v1/runs/{run}/events", headers=NDJSON)).content.splitlines()]
    sse = data_of(await running.client.get(f"/v1/runs/{run}/events"))
    assert [line["data"] for line in lines if "seq" in line] == sse == [1, 2, 3]
