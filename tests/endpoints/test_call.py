from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Code, ToolFailed
from tests.conftest import FakeCall, Running, until, within
from tests.endpoints.conftest import problem, raw

ADD = "/v1/tools/add/call"


async def test_call_answers_result_and_metadata(running: Running) -> None:
    def script(call: FakeCall) -> None:
        call.send(3.5)
        call.end({"note": "x"})

    running.pool.script = script
    response = await running.client.post(ADD, json={"a": 1, "b": 2.5})
    assert response.status_code == 200
    document = response.json()
    assert document["result"] == 3.5
    assert (document["metadata"]["note"], document["metadata"]["worker_id"]) == ("x", "w-1")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-location"].startswith("/v1/runs/r_")
    call = running.pool.calls[0].call
    assert (call.streaming, call.arguments) == (False, {"a": 1, "b": 2.5})


async def test_call_without_a_result_is_null(running: Running) -> None:
    running.pool.script = FakeCall.end
    assert (await running.client.post("/v1/tools/opaque/call")).json()["result"] is None


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.INVALID_ARGUMENT, 400),
        (Code.UNAUTHENTICATED, 401),
        (Code.PERMISSION_DENIED, 403),
        (Code.NOT_FOUND, 404),
        (Code.ALREADY_EXISTS, 409),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.CANCELLED, 499),
        (Code.INTERNAL, 500),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.DEADLINE_EXCEEDED, 504),
    ],
)
async def test_a_tools_own_status_is_the_http_status(running: Running, code: Code, status: int) -> None:
    running.pool.script = lambda call: call.fail(ToolFailed(code, "no", error_type="X", details={"limit": 3}))
    document = problem(await running.client.post(ADD, json={"a": 1, "b": 2}), status, "tool-error")
    assert (document["code"], document["error_type"], document["details"]) == (code.name, "X", {"limit": 3})


async def test_call_accepts_json_only(running: Running) -> None:
    response = await running.client.post(ADD, json={"a": 1, "b": 2}, headers={"Accept": "text/event-stream"})
    problem(response, 406, "not-acceptable")
    assert running.pool.calls == []


@pytest.mark.parametrize("queued", [True, False])
async def test_client_that_leaves_cancels_the_call(running: Running, queued: bool) -> None:
    running.pool.busy = queued
    stream = await raw(running, "POST", ADD, b'{"a":1,"b":2}')
    waiting = await (running.pool.next_ticket() if queued else running.pool.next_call())
    stream.cut()
    await within(waiting.cancelled.wait())
    await until(lambda: running.open_runs() == 0)


async def test_deadline_is_504(running: Running) -> None:
    response = await running.client.post(ADD, params={"_timeout_ms": "30"}, json={"a": 1, "b": 2})
    assert problem(response, 504, "worker-timeout")["code"] == "DEADLINE_EXCEEDED"


async def test_calls_run_side_by_side(running: Running) -> None:
    requests = [asyncio.ensure_future(running.client.post(ADD, json={"a": n, "b": 0})) for n in range(5)]
    calls = [await running.pool.next_call() for _ in requests]
    for call in reversed(calls):
        call.send(call.call.arguments["a"])
        call.end()
    assert [(await request).json()["result"] for request in requests] == [0, 1, 2, 3, 4]
