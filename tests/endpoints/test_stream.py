from __future__ import annotations

import asyncio

import httpx
import orjson
import pytest

from gateway.caller import ANONYMOUS
from gateway.errors import Code, GatewayError, ToolFailed
from tests.conftest import FakeCall, Running, Serve, until, within
from tests.endpoints.conftest import JSON, NDJSON, SSE, messages, problem, raw

COUNT = "/v1/tools/count/stream"


def count_to_three(call: FakeCall) -> None:
    call.send({"n": 1}, {"n": 2})
    call.send({"n": 3})
    call.end({"note": "done"})


# formats


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_stream_sends_start_chunks_and_end(running: Running, method: str) -> None:
    running.pool.script = count_to_three
    arguments = {"params": {"count": "3"}} if method == "GET" else {"json": {"count": 3}}
    response = await running.client.request(method, COUNT, **arguments)
    assert response.status_code == 200
    events = messages(response.content)
    assert [name for name, _ in events] == ["start", "message", "message", "message", "end"]
    assert [data for name, data in events if name == "message"] == [{"n": 1}, {"n": 2}, {"n": 3}]
    end = events[-1][1]
    assert (end["status"], end["chunks"], end["metadata"]["note"], end["metadata"]["worker_id"]) == ("ok", 3, "done", "w-1")
    assert running.pool.calls[0].call.arguments == {"count": 3}


async def test_stream_headers_are_those_of_the_protocol(running: Running) -> None:
    running.pool.script = count_to_three
    response = await running.client.get(COUNT)
    run = messages(response.content)[0][1]["run"]
    headers = response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["incremental"] == "?1"
    assert headers["vary"] == "Accept"
    assert headers["content-location"] == f"/v1/runs/{run}/events"
    marks = dict(mark.split(";dur=") for mark in headers["server-timing"].split(", "))
    assert set(marks) == {"queue", "first"}
    assert all(value.isdigit() for value in marks.values())


async def test_stream_begins_with_retry_and_the_ids_are_right(serve: Serve) -> None:
    async with serve(retry_ms=1234) as running:
        running.pool.script = count_to_three
        text = (await running.client.get(COUNT)).text
    run = orjson.loads(text.split("data: ")[1].split("\n")[0])["run"]
    assert text.startswith(f"retry: 1234\nid: {run}.0\nevent: start\n")
    assert [line for line in text.split("\n") if line.startswith("id: ")] == [f"id: {run}.{n}" for n in (0, 1, 2, 3, "end")]


async def test_ndjson_is_a_line_an_event(running: Running) -> None:
    running.pool.script = count_to_three
    response = await running.client.get(COUNT, headers=NDJSON)
    assert response.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    lines = [orjson.loads(line) for line in response.content.splitlines()]
    assert [next(iter(line)) for line in lines] == ["start", "seq", "seq", "seq", "end"]
    assert lines[3] == {"seq": 3, "data": {"n": 3}}


async def test_json_is_one_document(running: Running) -> None:
    running.pool.script = count_to_three
    response = await running.client.post(COUNT, headers=JSON)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["vary"] == "Accept"
    document = response.json()
    assert document["chunks"] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert (document["end"]["status"], document["end"]["chunks"]) == ("ok", 3)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("application/jsonl", "application/jsonl"),
        ("application/json, */*", "application/json"),
        ("application/json;q=0.1, application/x-ndjson;q=0.2", "application/x-ndjson"),
        ("text/event-stream;q=0, */*", "application/x-ndjson"),
        ("text/html, */*;q=0.1", "text/event-stream"),
    ],
)
async def test_accept_chooses_the_format(running: Running, accept: str, media_type: str) -> None:
    running.pool.script = count_to_three
    response = await running.client.get(COUNT, headers={"Accept": accept})
    assert response.headers["content-type"].split(";")[0] == media_type


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/event-stream;q=0"])
async def test_accept_of_nothing_we_have_is_406_and_runs_nothing(running: Running, accept: str) -> None:
    response = await running.client.get(COUNT, headers={"Accept": accept})
    detail = problem(response, 406, "not-acceptable")["detail"]
    assert "text/event-stream, application/x-ndjson, application/jsonl, application/json" in detail
    assert running.pool.calls == []


async def test_chunks_arrive_as_they_happen(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as response:
        text = response.aiter_text()
        call = None
        for number in range(5):
            if call is None:
                call = await running.pool.next_call()
            call.send(number)
            received = ""
            while f"data: {number}\n\n" not in received:
                received += await within(anext(text))
        assert call is not None
        call.end()


async def test_a_batch_is_one_write(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        call.send(*range(1000))
        raw_parts = response.aiter_raw()
        first = await within(anext(raw_parts))
        while b"data: 999\n" not in first:
            first += await within(anext(raw_parts))
        assert messages(first)[-1] == ("message", 999)
        call.end()


# the truth about the first byte


async def test_error_before_the_first_chunk_is_a_real_status(running: Running) -> None:
    running.pool.script = lambda call: call.fail(
        ToolFailed(Code.NOT_FOUND, "no such file", error_type="FileNotFoundError", traceback="secret")
    )
    response = await running.client.get(COUNT)
    document = problem(response, 404, "tool-error")
    assert (document["error_type"], document["detail"], document["code"]) == ("FileNotFoundError", "no such file", "NOT_FOUND")
    assert document["instance"].startswith("/v1/runs/r_")
    assert "traceback" not in document


async def test_traceback_is_shown_in_debug_mode(serve: Serve) -> None:
    async with serve(debug=True) as running:
        running.pool.script = FakeCall.fail
        response = await running.client.get(COUNT)
    assert problem(response, 400, "tool-error")["traceback"] == "Traceback: boom"


async def test_error_after_the_first_chunk_is_the_end_event(running: Running) -> None:
    def script(call: FakeCall) -> None:
        call.send(1)
        call.fail()

    running.pool.script = script
    response = await running.client.get(COUNT)
    assert response.status_code == 200
    events = messages(response.content)
    assert [name for name, _ in events] == ["start", "message", "end"]
    end = events[-1][1]
    assert (end["status"], end["error"]["type"], end["error"]["status"], end["chunks"]) == ("error", "/problems/tool-error", 400, 1)


async def test_silence_longer_than_the_hold_is_200_and_the_error_comes_as_end(serve: Serve) -> None:
    async with serve(first_byte_hold_s=0.05) as running, running.client.stream("GET", COUNT) as response:
        assert response.status_code == 200
        (await running.pool.next_call()).fail()
        events = messages(await response.aread())
    assert [name for name, _ in events] == ["start", "end"]
    assert events[-1][1]["error"]["error_type"] == "ValueError"


async def test_the_status_line_waits_for_the_first_chunk(serve: Serve) -> None:
    async with serve(first_byte_hold_s=5) as running:
        stream = await raw(running, "GET", COUNT)
        call = await running.pool.next_call()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await stream.reader.read(1)
        call.send(1)
        assert (await stream.until(b"data: 1\n\n")).startswith(b"HTTP/1.1 200")
        stream.cut()


async def test_an_empty_stream_is_200(running: Running) -> None:
    running.pool.script = FakeCall.end
    response = await running.client.get(COUNT)
    assert [name for name, _ in messages(response.content)] == ["start", "end"]


async def test_deadline_before_the_first_chunk_is_504(running: Running) -> None:
    response = await running.client.get(COUNT, params={"_timeout_ms": "30"})
    problem(response, 504, "worker-timeout")
    assert running.pool.calls[0].cancelled.is_set()


async def test_idle_deadline_after_a_chunk_is_an_end_with_status_deadline(running: Running) -> None:
    running.pool.script = lambda call: call.send(1)
    response = await running.client.get(COUNT, params={"_idle_timeout_ms": "30"})
    assert response.status_code == 200
    assert messages(response.content)[-1][1]["status"] == "deadline"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GatewayError("pool-saturated", "full", retry_after_s=2.2), 503),
        (GatewayError("worker-busy", "busy"), 503),
        (GatewayError("session-worker-unavailable", "gone"), 409),
    ],
)
async def test_refusal_by_the_pool_is_its_status(running: Running, error: GatewayError, status: int) -> None:
    running.pool.refusal = error
    response = await running.client.get(COUNT)
    problem(response, status, error.problem)
    assert response.headers.get("retry-after") == ("3" if error.retry_after_s else None)
    assert running.open_runs() == 0


async def test_queue_timeout_is_503_with_its_own_type(running: Running) -> None:
    running.pool.busy = True
    request = asyncio.ensure_future(running.client.get(COUNT))
    (await running.pool.next_ticket()).refuse(GatewayError("queue-timeout", "10 s", retry_after_s=1))
    response = await within(request)
    problem(response, 503, "queue-timeout")
    assert response.headers["retry-after"] == "1"


async def test_queued_run_says_its_place_and_then_its_worker(serve: Serve) -> None:
    async with serve(first_byte_hold_s=0) as running:
        running.pool.busy = True
        async with running.client.stream("GET", COUNT) as response:
            ticket = await running.pool.next_ticket()
            text = response.aiter_bytes()
            received = b""
            while b'"queued"' not in received:
                received += await within(anext(text))
            running.pool.script = count_to_three
            ticket.grant()
            async for part in text:
                received += part
    assert [data for name, data in messages(received) if name == "status"] == [
        {"state": "queued", "position": 1, "depth": 1, "pool": "default"},
        {"state": "running", "worker": "w-1", "pool": "default", "attempt": 1},
    ]
    assert messages(received)[-1][1]["timing"]["queue_ms"] >= 0


# heartbeat


@pytest.mark.parametrize(("headers", "beat"), [(SSE, b": hb\n"), (NDJSON, b"\n")])
async def test_heartbeat_line_comes_in_silence(serve: Serve, headers: dict[str, str], beat: bytes) -> None:
    async with serve(heartbeat_s=0.05, first_byte_hold_s=0) as running, running.client.stream("GET", COUNT, headers=headers) as response:
        call = await running.pool.next_call()
        parts = response.aiter_raw()
        first = await within(anext(parts))
        assert b"start" in first
        assert [await within(anext(parts)) for _ in range(2)] == [beat, beat]
        call.end()


async def test_heartbeat_comes_while_queued(serve: Serve) -> None:
    async with serve(heartbeat_s=0.05, first_byte_hold_s=0) as running:
        running.pool.busy = True
        async with running.client.stream("GET", COUNT) as response:
            received = b""
            async for part in response.aiter_raw():
                received += part
                if received.endswith(b": hb\n: hb\n"):
                    break
        assert b"queued" in received


async def test_heartbeat_is_silent_while_chunks_flow(serve: Serve) -> None:
    async with serve(heartbeat_s=0.2, first_byte_hold_s=0) as running, running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        for number in range(20):
            await asyncio.sleep(0.02)
            call.send(number)
        call.end()
        assert b": hb" not in await response.aread()


# the client leaves


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson", "application/json"])
@pytest.mark.parametrize("phase", ["queued", "before the first chunk", "between chunks"])
async def test_disconnect_cancels_in_every_phase(running: Running, accept: str, phase: str) -> None:
    pool = running.pool
    pool.busy = phase == "queued"
    stream = await raw(running, "POST", COUNT, b"{}", Accept=accept)
    if phase == "queued":
        ticket = await pool.next_ticket()
        stream.cut()
        await within(ticket.cancelled.wait())
    else:
        call = await pool.next_call()
        if phase == "between chunks":
            call.send(1)
            if accept != "application/json":
                await stream.until(b"1")
        stream.cut()
        await within(call.cancelled.wait())
    await until(lambda: running.open_runs() == 0)
    assert pool.in_flight == 0 or not pool.busy


async def test_disconnect_cancels_a_stream_that_is_blocked_in_a_write(running: Running) -> None:
    stream = await raw(running, "GET", COUNT, receive_buffer_bytes=4096)
    call = await running.pool.next_call()
    while not call.paused:
        call.send("x" * 10_000)
        await asyncio.sleep(0)
    stream.cut()
    await within(call.cancelled.wait())
    assert running.open_runs() == 0


async def test_a_reader_that_closes_politely_cancels_too(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        call.send(1)
        await anext(response.aiter_raw())
    await within(call.cancelled.wait())


async def test_a_stalled_reader_pauses_the_worker_and_is_cut_after_the_write_timeout(serve: Serve) -> None:
    async with serve(write_timeout_s=0.3, reader_lag_bytes=50_000) as running:
        stream = await raw(running, "GET", COUNT, receive_buffer_bytes=4096)
        call = await running.pool.next_call()
        while not call.paused:
            call.send("x" * 10_000)
            await asyncio.sleep(0)
        assert not call.cancelled.is_set()
        await within(call.cancelled.wait())
        assert running.open_runs() == 0
        # Really closed: nothing waits for that reader any more.
        await until(lambda: not running.http.server_state.connections)
        received = await stream.rest()
        assert b'"end"' not in received[-300:]


async def test_a_slow_reader_that_makes_progress_is_not_cut(serve: Serve) -> None:
    async with serve(write_timeout_s=0.4, reader_lag_bytes=20_000) as running:
        stream = await raw(running, "GET", COUNT, receive_buffer_bytes=4096)
        call = await running.pool.next_call()
        sent = 0
        received = b""
        async with asyncio.timeout(10):
            while sent < 60:
                if not call.paused:
                    call.send("x" * 10_000)
                    sent += 1
                received += await stream.reader.read(8192)
                await asyncio.sleep(0.005)
            call.end()
            while b"event: end" not in received:
                received += await stream.reader.read(65536)
        assert received.count(b"x" * 10_000) == 60


# reconnects


async def ended_run(running: Running) -> str:
    """Run `count` to its end; return its id."""
    running.pool.script = count_to_three
    return str(messages((await running.client.get(COUNT)).content)[0][1]["run"])


async def test_reconnect_after_the_end_is_204_and_runs_nothing(running: Running) -> None:
    run = await ended_run(running)
    for path in (COUNT, f"/v1/runs/{run}/events"):
        response = await running.client.get(path, headers={"Last-Event-ID": f"{run}.end"})
        assert (response.status_code, response.content) == (204, b"")
    assert len(running.pool.calls) == 1


async def test_reconnect_with_an_end_id_of_an_unknown_run_is_204(running: Running) -> None:
    response = await running.client.get(COUNT, headers={"Last-Event-ID": "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.end"})
    assert response.status_code == 204
    assert running.pool.calls == []


async def test_reconnect_to_an_ended_run_gets_the_rest(running: Running) -> None:
    run = await ended_run(running)
    events = messages((await running.client.get(COUNT, headers={"Last-Event-ID": f"{run}.1"})).content)
    assert [name for name, _ in events] == ["start", "message", "message", "end"]
    assert (events[0][1]["resumed"], events[0][1]["from"]) == (True, 2)
    assert [data["n"] for name, data in events if name == "message"] == [2, 3]
    assert len(running.pool.calls) == 1


async def test_reconnect_gets_a_gap_for_what_is_gone(running: Running) -> None:
    run = await ended_run(running)
    # As when the memory was needed for others: its last batch is left.
    running.gateway.hub.get(run, ANONYMOUS).log.shrink(10**9, keep_batches=1)
    events = messages((await running.client.get(COUNT, headers={"Last-Event-ID": f"{run}.1"})).content)
    assert [name for name, _ in events] == ["start", "gap", "message", "end"]
    assert events[1][1] == {"from": 2, "to": 2, "reason": "evicted"}
    assert len(running.pool.calls) == 1


async def test_reconnect_with_nothing_but_the_end_left_gets_it(running: Running) -> None:
    run = await ended_run(running)
    response = await running.client.get(COUNT, headers={"Last-Event-ID": f"{run}.3"})
    assert [name for name, _ in messages(response.content)] == ["start", "end"]


async def test_reconnect_to_a_live_run_replays_and_goes_on(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as first:
        call = await running.pool.next_call()
        call.send(1, 2, 3)
        run = first.headers["content-location"].split("/")[3]
        async with running.client.stream("GET", COUNT, headers={"Last-Event-ID": f"{run}.1"}) as second:
            call.send(4)
            call.end()
            data = messages(await second.aread())
        await first.aread()
    assert [value for name, value in data if name == "message"][-1] == 4
    assert data[-1][0] == "end"
    assert len(running.pool.calls) == 1


async def test_reconnect_to_a_failed_run_is_200_with_its_end(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as first:
        call = await running.pool.next_call()
        call.send(1)
        call.fail()
        run = messages(await first.aread())[0][1]["run"]
    response = await running.client.get(COUNT, headers={"Last-Event-ID": f"{run}.1"})
    assert response.status_code == 200
    assert messages(response.content)[-1][1]["status"] == "error"


@pytest.mark.parametrize("headers", [SSE, NDJSON, JSON])
async def test_reconnect_to_an_unknown_run_is_an_end_that_says_expired(running: Running, headers: dict[str, str]) -> None:
    run = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"
    response = await running.client.get(COUNT, headers={"Last-Event-ID": f"{run}.5", **headers})
    assert response.status_code == 200
    if headers is SSE:
        assert f"id: {run}.end\n" in response.text
        ((name, end),) = messages(response.content)
        assert name == "end"
    else:
        document = response.json()
        end = document["end"]
        assert headers is NDJSON or document["chunks"] == []
    assert (end["status"], end["error"]["status"], end["error"]["type"]) == ("expired", 410, "/problems/run-expired")
    assert running.pool.calls == []


@pytest.mark.parametrize("event_id", ["5", "nonsense", "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X", "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.x"])
async def test_reconnect_with_an_id_of_somebody_else_is_400(running: Running, event_id: str) -> None:
    response = await running.client.get(COUNT, headers={"Last-Event-ID": event_id})
    document = problem(response, 400, "invalid-option")
    assert document["errors"][0]["field"] == "Last-Event-ID"
    assert running.pool.calls == []


async def test_reconnect_to_a_run_with_another_runs_id_is_400(running: Running) -> None:
    run = await ended_run(running)
    response = await running.client.get(f"/v1/runs/{run}/events", headers={"Last-Event-ID": "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.1"})
    problem(response, 400, "invalid-option")


async def test_post_with_last_event_id_runs_nothing(running: Running) -> None:
    run = await ended_run(running)
    response = await running.client.post(COUNT, json={}, headers={"Last-Event-ID": f"{run}.end"})
    assert response.status_code == 204
    assert len(running.pool.calls) == 1


# HEAD


async def test_head_says_what_a_get_would_be_and_runs_nothing(running: Running) -> None:
    response = await running.client.head(COUNT + "?_session=s", headers=NDJSON)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
    assert running.pool.requests == []
    assert len(running.gateway.sessions) == 0


@pytest.mark.parametrize(("path", "status"), [("/v1/tools/nobody/stream", 404), (COUNT + "?count=x", 422), (COUNT + "?_x=1", 400)])
async def test_head_of_a_request_that_would_fail_says_so(running: Running, path: str, status: int) -> None:
    response = await running.client.head(path)
    assert (response.status_code, response.content) == (status, b"")


# JSON


async def test_json_of_a_failure_is_its_problem_with_the_chunks_that_came(running: Running) -> None:
    def script(call: FakeCall) -> None:
        call.send(1, 2)
        call.fail()

    running.pool.script = script
    document = problem(await running.client.get(COUNT, headers=JSON), 400, "tool-error")
    assert document["chunks"] == [1, 2]


async def test_json_larger_than_the_limit_is_413_and_cancels(serve: Serve) -> None:
    async with serve(result_limit_bytes=1000) as running:
        running.pool.script = lambda call: call.send("x" * 1001)
        response = await running.client.get(COUNT, headers=JSON)
        problem(response, 413, "result-too-large")
        await within(running.pool.calls[0].cancelled.wait())


async def test_json_of_a_run_that_is_half_gone_says_the_gap(running: Running) -> None:
    run = await ended_run(running)
    running.gateway.hub.get(run, ANONYMOUS).log.shrink(10**9, keep_batches=1)
    for path in ("events", "result"):
        document = (await running.client.get(f"/v1/runs/{run}/{path}", headers=JSON)).json()
        assert document["chunks"] == [{"n": 3}]
        assert document["gaps"] == [{"from": 1, "to": 2, "reason": "evicted"}]


# the server


async def test_no_middleware_hides_the_disconnect(running: Running) -> None:
    layer = running.app.build_middleware_stack()
    seen = []
    while layer is not None:
        seen.append(type(layer).__name__)
        assert "BaseHTTPMiddleware" not in [kind.__name__ for kind in type(layer).__mro__]
        layer = getattr(layer, "app", None)
    assert len(seen) > 2


@pytest.mark.parametrize("linked", [True, False], ids=["own server", "another server"])
async def test_at_most_one_consumer_reads_receive(running: Running, linked: bool) -> None:
    """None under our own server, whose link tells of the loss; one where there is only ASGI."""
    waiting = most = 0
    original = running.app.__call__

    async def counted(scope: dict[str, object], receive: object, send: object) -> None:
        if not linked:
            scope = {**scope, "extensions": {}}

        async def counting() -> object:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            try:
                return await receive()  # type: ignore[operator]
            finally:
                waiting -= 1

        await original(scope, counting, send)

    running.http.config.loaded_app = counted
    async with running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        call.send(1)
        await anext(response.aiter_raw())
        assert (waiting, most) == ((0, 0) if linked else (1, 1))
    await within(call.cancelled.wait())


async def test_keep_alive_serves_the_next_request_on_the_same_connection(running: Running) -> None:
    running.pool.script = count_to_three
    stream = await raw(running, "GET", COUNT)
    await stream.until(b"0\r\n\r\n")
    stream.writer.write(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
    assert (await stream.until(b'{"status":"ok"}')).startswith(b"HTTP/1.1 200")
    stream.cut()


async def test_drain_ends_open_streams_with_status_shutdown(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        call.send(1)
        await running.gateway.drain_runs()
        events = messages(await response.aread())
    assert (events[-1][1]["status"], events[-1][1]["error"]["type"]) == ("shutdown", "/problems/shutting-down")
    problem(await running.client.get(COUNT), 503, "shutting-down")


async def test_many_streams_at_once_are_each_complete(running: Running) -> None:
    running.pool.script = lambda call: (call.send(*range(100)), call.end())  # type: ignore[assignment, func-returns-value]
    limits = httpx.Limits(max_connections=60)
    async with httpx.AsyncClient(base_url=running.url, limits=limits, trust_env=False, timeout=20) as client:
        responses = await asyncio.gather(*(client.get(COUNT, headers=NDJSON) for _ in range(60)))
    for response in responses:
        lines = [orjson.loads(line) for line in response.content.splitlines()]
        assert [line["seq"] for line in lines if "seq" in line] == list(range(1, 101))


async def test_the_number_of_open_streams_is_bounded(serve: Serve) -> None:
    async with serve(open_runs_limit=1) as running, running.client.stream("GET", COUNT) as first:
        call = await running.pool.next_call()
        response = await running.client.get(COUNT)
        problem(response, 429, "too-many-streams")
        assert response.headers["retry-after"] == "1"
        call.end()
        await first.aread()
