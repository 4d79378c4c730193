"""Request ids and traces, from the request to the response, the problem document, the start event and the worker; and the access log."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
import websockets
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from tests.conftest import FakeCall, Running, Serve, until
from tests.endpoints.conftest import JSON, NDJSON, SSE, messages, raw

COUNT = "/v1/tools/count/stream"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
MINE = {"X-Request-Id": "mine-1", "traceparent": PARENT, "tracestate": "a=b"}
MADE = re.compile(r"[0-9a-f]{12}-[0-9a-f]+")


def one_chunk(call: FakeCall) -> None:
    call.send(1)
    call.end()


def by_way_of_asgi(running: Running) -> None:
    """Have streams answered under ASGI, as with any middleware."""

    def nothing(app: ASGIApp) -> ASGIApp:
        return app

    running.app.user_middleware.append(Middleware(nothing))  # type: ignore[arg-type]


@pytest.fixture(params=["directly", "under ASGI"])
def either_way(request: pytest.FixtureRequest, running: Running) -> Running:
    if request.param != "directly":
        by_way_of_asgi(running)
    return running


async def test_a_request_id_comes_back_and_goes_on_to_the_worker(either_way: Running) -> None:
    running = either_way
    running.pool.script = one_chunk
    response = await running.client.get(COUNT, headers={**SSE, **MINE})
    assert response.headers.get_list("x-request-id") == ["mine-1"]
    assert running.pool.calls[0].metadata == {"x-snakepit-correlation-id": "mine-1", "traceparent": PARENT, "tracestate": "a=b"}
    start = messages(response.content)[0]
    assert (start[0], start[1]["trace_id"]) == ("start", TRACE_ID)


async def test_a_request_without_one_gets_one(either_way: Running) -> None:
    running = either_way
    running.pool.script = one_chunk
    ids = [(await running.client.get(COUNT, headers=SSE)).headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(MADE.fullmatch(found) for found in ids)
    assert [call.metadata for call in running.pool.calls] == [{"x-snakepit-correlation-id": found} for found in ids]
    assert "trace_id" not in messages((await running.client.get(COUNT, headers=SSE)).content)[0][1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/tools"),
        ("GET", "/v1/nothing"),
        ("GET", "/metrics"),
        ("GET", "/v1/tools/nobody/stream"),
        ("POST", "/v1/tools/add/call"),
        ("DELETE", "/v1/runs/r_x"),
        ("HEAD", COUNT),
        ("PUT", COUNT),
    ],
)
async def test_every_response_has_it_once_and_problems_say_it(running: Running, method: str, path: str) -> None:
    response = await running.client.request(method, path, headers=MINE)
    assert response.headers.get_list("x-request-id") == ["mine-1"]
    if response.headers.get("content-type") == "application/problem+json":
        document = response.json()
        assert (document["request_id"], document["trace_id"]) == ("mine-1", TRACE_ID)
        assert int(response.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize("headers", [SSE, NDJSON, JSON])
async def test_a_failed_runs_problem_says_both(either_way: Running, headers: dict[str, str]) -> None:
    running = either_way
    running.pool.script = lambda call: call.fail()
    response = await running.client.get(COUNT, headers={**headers, **MINE})
    document = response.json()
    assert (response.status_code, document["request_id"], document["trace_id"]) == (400, "mine-1", TRACE_ID)
    assert response.text.count('"trace_id":') == 1


async def test_a_failure_after_chunks_is_a_document_with_them_and_the_id(running: Running) -> None:
    running.pool.script = lambda call: (call.send(1), call.fail())
    response = await running.client.get(COUNT, headers={**JSON, **MINE})
    document = response.json()
    assert (document["chunks"], document["request_id"], document["trace_id"]) == ([1], "mine-1", TRACE_ID)


async def test_a_body_that_is_too_large_is_told_with_the_id(serve: Serve) -> None:
    async with serve(body_limit_bytes=10) as running:
        stream = await raw(running, "POST", COUNT, b"x" * 100, X_Request_Id="mine-1")
        answer = await stream.until(b"}")
        assert b"413" in answer
        assert b'"request_id":"mine-1"' in answer
        assert b"x-request-id: mine-1" in answer.lower()


async def test_a_socket_has_one_and_its_runs_have_the_same(running: Running) -> None:
    url = f"{running.ws_url}/v1/tools/count/ws"
    async with websockets.connect(url, additional_headers=MINE, proxy=None) as socket:
        assert socket.response is not None
        assert socket.response.headers["x-request-id"] == "mine-1"
        call = await running.pool.next_call()
        assert call.metadata["x-snakepit-correlation-id"] == "mine-1"
        assert TRACE_ID in str(await socket.recv())
        call.end()


async def test_a_refused_handshake_says_it_too(running: Running) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"{running.ws_url}/v1/ws", origin="https://evil.example", additional_headers=MINE, proxy=None)
    assert refused.value.response.headers["x-request-id"] == "mine-1"
    assert b'"request_id":"mine-1"' in refused.value.response.body


def lines(logs: list[Any]) -> list[dict[str, Any]]:
    return [line for line in logs if line["event"] == "request"]


@pytest.mark.parametrize("directly", [True, False])
async def test_the_access_log_has_a_line_a_request_and_never_the_query(serve: Serve, directly: bool) -> None:
    async with serve(log={"access": True}) as running:
        if not directly:
            by_way_of_asgi(running)
        running.pool.script = one_chunk
        with capture_logs() as logs:
            answered = await running.client.get(f"{COUNT}?count=3&_session=secret", headers={**SSE, **MINE})
            await running.client.get("/v1/tools?token=secret")
            await running.client.get("/v1/tools/nobody/stream", headers=MINE)
            await until(lambda: len(lines(logs)) == 3)
        first, second, third = lines(logs)
        assert 0 <= first.pop("duration_ms") < 5000
        assert first == {
            "event": "request",
            "log_level": "info",
            "method": "GET",
            "route": "/v1/tools/{tool}/stream",
            "path": COUNT,
            "status": 200,
            "bytes": len(answered.content),
            "trace_id": TRACE_ID,
            "request_id": "mine-1",
        }
        assert (second["route"], second["path"], second["status"]) == ("/v1/tools", "/v1/tools", 200)
        assert (third["route"], third["status"]) == ("/v1/tools/{tool}/stream", 404)
        assert "secret" not in str(logs)


@pytest.mark.parametrize("directly", [True, False])
async def test_the_access_log_says_who_did_not_wait(serve: Serve, directly: bool) -> None:
    async with serve(log={"access": True}, first_byte_hold_s=30) as running:
        if not directly:
            by_way_of_asgi(running)
        with capture_logs() as logs:
            silent = await raw(running, "GET", COUNT)
            await running.pool.next_call()
            silent.cut()
            await until(lambda: len(lines(logs)) == 1)
            begun = await raw(running, "GET", COUNT)
            (await running.pool.next_call()).send(1)
            await begun.until(b"data: 1")
            begun.cut()
            await until(lambda: len(lines(logs)) == 2)
        assert [line["status"] for line in lines(logs)] == [499, 200]


async def test_the_access_log_has_a_line_a_socket(serve: Serve) -> None:
    async with serve(log={"access": True}) as running:
        running.pool.script = one_chunk
        with capture_logs() as logs:
            async with websockets.connect(f"{running.ws_url}/v1/tools/count/ws", additional_headers=MINE, proxy=None) as socket:
                async for _ in socket:
                    pass
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(f"{running.ws_url}/v1/ws", origin="https://evil.example", proxy=None)
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(f"{running.ws_url}/v1/nothing", proxy=None)
            await until(lambda: len(lines(logs)) == 3)
        done, refused, nothing = lines(logs)
        assert (done["method"], done["status"], done["route"], done["request_id"]) == ("WEBSOCKET", 101, "/v1/tools/{tool}/ws", "mine-1")
        assert "bytes" not in done
        # Ahead of the router, as all who may not come in.
        assert (refused["status"], refused["route"]) == (403, "other")
        assert (nothing["status"], nothing["route"]) == (403, "other")


async def test_without_a_wish_there_is_no_access_log(running: Running) -> None:
    running.pool.script = one_chunk
    with capture_logs() as logs:
        await running.client.get(COUNT, headers=SSE)
        await running.client.get("/v1/tools")
    assert lines(logs) == []


async def test_what_a_request_logs_carries_its_id(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(running.gateway.catalog, "list", broken)
    monkeypatch.setattr(running.gateway.hub, "check", broken)
    with capture_logs() as logs:
        answers: list[httpx.Response] = list(
            await asyncio.gather(running.client.get("/v1/tools", headers=MINE), running.client.get(COUNT, headers=MINE))
        )
    assert [answer.status_code for answer in answers] == [500, 500]
    assert [line["request_id"] for line in logs if line["event"] == "unexpected error"] == ["mine-1", "mine-1"]
