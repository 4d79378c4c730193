"""A caller's limits as every front door says them; counted over real sockets, from loopback."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gateway.bridge.server import BridgeServer
from gateway.bridge.service import BridgeService
from gateway.caller import Caller
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from tests.conftest import FakeCall, Running, Serve, until
from tests.endpoints.conftest import JSON, NDJSON, SSE, problem, raw
from tests.endpoints.test_websocket import joined

STREAM = "/v1/tools/count/stream"
ONE = {"streams": 1, "count_loopback": True}


async def stream_open(running: Running) -> Any:
    """Open a stream and return its first event's text."""
    stream = await raw(running, "GET", STREAM)
    await stream.until(b"event: start")
    return stream


async def test_one_stream_too_many_is_429_and_says_what_is_allowed(serve: Serve) -> None:
    async with serve(limits=ONE, first_byte_hold_s=0) as running:
        head = await stream_open(running)
        answer = await running.client.get(STREAM)
        document = problem(answer, 429, "quota-exceeded")
        assert document["detail"] == "1 runs are open; the caller's limit is 1 at once"
        assert document["violated-policies"] == ["streams"]
        assert document["quotas"][0]["remaining"] == 0
        assert document["retry_after_ms"] == 1000
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["ratelimit-policy"] == '"streams";q=1;qu="concurrent-requests"'
        assert answer.headers["ratelimit"] == '"streams";r=0'
        head.cut()
        await until(lambda: running.open_runs() == 0)
        (await stream_open(running)).cut()
        await until(lambda: running.open_runs() == 0)


@pytest.mark.parametrize("accept", [SSE, NDJSON, JSON])
async def test_a_start_that_is_counted_says_what_is_left(serve: Serve, accept: dict[str, str]) -> None:
    async with serve(limits={"starts_per_minute": 5, "count_loopback": True}) as running:
        running.pool.script = _one_chunk
        for left in (4, 3):
            answer = await running.client.get(STREAM, headers=accept)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"starts";q=5;w=60'
            assert answer.headers["ratelimit"].startswith(f'"starts";r={left};t=')


async def test_unary_calls_and_background_runs_count_as_well(serve: Serve) -> None:
    async with serve(limits={"starts_per_minute": 2, "count_loopback": True}) as running:
        running.pool.script = _one_chunk
        called = await running.client.post("/v1/tools/add/call", json={"a": 1, "b": 2})
        assert called.headers["ratelimit"].startswith('"starts";r=1;')
        started = await running.client.post("/v1/tools/count/runs", json={})
        assert (started.status_code, started.headers["ratelimit"][:12]) == (202, '"starts";r=0')
        refused = await running.client.post("/v1/tools/count/runs", json={})
        problem(refused, 429, "quota-exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_what_is_wrong_with_a_request_is_said_first_and_not_counted(serve: Serve) -> None:
    async with serve(limits={"starts_per_minute": 1, "count_loopback": True}) as running:
        running.pool.script = _one_chunk
        for _ in range(3):
            assert (await running.client.get(f"{STREAM}?count=x")).status_code == 422
        assert (await running.client.get(STREAM)).status_code == 200


async def test_bytes_over_the_limit_refuse_new_runs_and_new_readers_but_cut_nobody(serve: Serve) -> None:
    async with serve(limits={"bytes_per_minute": 2000, "count_loopback": True}, first_byte_hold_s=0) as running:
        stream = await raw(running, "GET", STREAM)
        call = await running.pool.next_call()
        call.send("x" * 3000)
        await stream.until(b'xxx"\n\n')
        refused = await running.client.get(STREAM)
        assert problem(refused, 429, "quota-exceeded")["violated-policies"] == ["bytes"]
        problem(await running.client.get(f"/v1/runs/{call.run_id}/events"), 429, "quota-exceeded")
        problem(await running.client.get(STREAM, headers={"Last-Event-ID": f"{call.run_id}.0"}), 429, "quota-exceeded")
        assert (await running.client.get(f"/v1/runs/{call.run_id}")).status_code == 200
        call.send("still here")
        await stream.until(b"still here")
        stream.cut()


@pytest.mark.parametrize("path", [STREAM, "/v1/tools/count/runs"])
async def test_bytes_over_the_limit_refuse_who_waits_for_a_result_that_was_read_before(serve: Serve, path: str) -> None:
    async with serve(limits={"bytes_per_minute": 2000, "count_loopback": True}) as running:
        running.pool.script = _many_bytes
        waits = {**JSON, "Idempotency-Key": "k", "Prefer": "respond-async, wait=5"}
        assert (await running.client.post(path, json={}, headers=waits)).status_code == 200
        answer = await running.client.post(path, json={}, headers=waits)
        assert problem(answer, 429, "quota-exceeded")["violated-policies"] == ["bytes"]
        assert len(running.pool.calls) == 1


async def test_a_socket_hears_it_as_an_error_and_goes_on(serve: Serve) -> None:
    async with serve(limits=ONE) as running, joined(running) as client:
        await client.subscribe("a")
        call = await running.pool.next_call()
        assert (await client.hear())["type"] == "start"
        await client.subscribe("b")
        frame = await client.hear()
        assert (frame["type"], frame["id"], frame["payload"]["type"]) == ("error", "b", "/problems/quota-exceeded")
        assert frame["payload"]["quotas"][0]["limit"] == 1
        call.end()
        assert (await client.hear_until("complete"))[-1]["id"] == "a"


async def test_a_grpc_caller_gets_resource_exhausted_with_the_fields_as_metadata(serve: Serve) -> None:
    async with serve(limits=ONE) as running:
        service = BridgeService(running.gateway.hub, running.gateway.sessions)
        server = BridgeServer(service, "127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub: Any = pb_grpc.BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
                await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"))
                held = await raw(running, "GET", STREAM)
                await running.pool.next_call()
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async for _ in stub.ExecuteStreamingTool(pb.ExecuteToolRequest(session_id="s", tool_name="count")):
                        pass
                unary = await stub.ExecuteTool(pb.ExecuteToolRequest(session_id="s", tool_name="opaque"))
                held.cut()
        finally:
            await server.stop(0)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = dict(caught.value.trailing_metadata() or ())
    said = {name: metadata[name] for name in ("ratelimit-policy", "ratelimit", "retry-after")}
    assert said == {"ratelimit-policy": '"streams";q=1;qu="concurrent-requests"', "ratelimit": '"streams";r=0', "retry-after": "1"}
    assert (unary.success, unary.metadata["error_code"], unary.metadata["ratelimit"]) == (False, "RESOURCE_EXHAUSTED", '"streams";r=0')


async def test_callers_that_are_known_have_limits_of_their_own(serve: Serve) -> None:
    class Named:
        def admit_now(self, connection: Any) -> Caller:
            return Caller(connection.headers["guest"])

    async with serve(limits={"starts_per_minute": 1, "callers": {"vip": {"starts_per_minute": 0}}}) as running:
        running.app.admission = Named()
        running.pool.script = _one_chunk
        assert [(await running.client.get(STREAM, headers={"guest": "a"})).status_code for _ in range(2)] == [200, 429]
        assert (await running.client.get(STREAM, headers={"guest": "b"})).status_code == 200
        vip = [await running.client.get(STREAM, headers={"guest": "vip"}) for _ in range(3)]
        assert [(answer.status_code, "ratelimit" in answer.headers) for answer in vip] == [(200, False)] * 3


async def test_without_limits_nothing_is_counted_or_said(running: Running) -> None:
    running.pool.script = _one_chunk
    answer = await running.client.get(STREAM)
    assert "ratelimit" not in answer.headers
    assert running.gateway.hub.quotas is None


def _one_chunk(call: FakeCall) -> None:
    call.send(1)
    call.end()


def _many_bytes(call: FakeCall) -> None:
    call.send("x" * 3000)
    call.end()
