"""BridgeService over a real gRPC server: what Snakepit's own BridgeServer does, row by row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.bridge.server import SERVICE, BridgeServer
from gateway.bridge.service import BridgeService
from gateway.codec.values import JSON_TYPE_URL
from gateway.errors import Code, GatewayError, ToolFailed
from gateway.events import ChunkAttributes
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.runs.hub import Hub, HubLimits
from gateway.sessions import TOOLS_LIMIT, Sessions
from gateway.workers.catalog import Catalog
from tests.bridge.conftest import Connected
from tests.conftest import FakeCall, FakePool, until, within

NOT_STREAMING = (
    "Streaming execution is not enabled for tool {}. "
    "Enable streaming support on the adapter (supports_streaming: true) or use ExecuteTool instead."
)


class Bridge(Connected):
    """A served bridge and a client's stub for it."""

    def __init__(self, pool: FakePool) -> None:
        self.pool = pool
        self.sessions = Sessions()
        self.hub = Hub(Catalog([pool]), {pool.name: pool}, HubLimits())  # type: ignore[list-item, dict-item]
        self.server = BridgeServer(BridgeService(self.hub, self.sessions, timeout_s=900, timeout_limit_s=3600), "127.0.0.1:0")

    async def open_session(self, session_id: str = "s") -> None:
        await self.stub.InitializeSession(pb.InitializeSessionRequest(session_id=session_id))

    async def register(self, name: str, *, worker_id: str = "w-1", streams: bool = True) -> pb.RegisterToolsResponse:
        tool = pb.ToolRegistration(name=name, supports_streaming=streams)
        return await self.stub.RegisterTools(pb.RegisterToolsRequest(session_id="s", tools=[tool], worker_id=worker_id))  # type: ignore[no-any-return]

    async def failure(self, wanted: pb.ExecuteToolRequest) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in self.stub.ExecuteStreamingTool(wanted):
                pass
        return caught.value.code(), caught.value.details() or ""


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    bridge = Bridge(FakePool())
    async with bridge.connected():
        yield bridge


def request(
    tool: str = "count", session: str = "s", parameters: dict[str, PackedAny] | None = None, **members: Any
) -> pb.ExecuteToolRequest:
    return pb.ExecuteToolRequest(session_id=session, tool_name=tool, parameters=parameters or {}, **members)


def packed(value: Any) -> PackedAny:
    return PackedAny(type_url=JSON_TYPE_URL, value=orjson.dumps(value))


# ExecuteStreamingTool: the checks, in order


BAD = PackedAny(type_url=JSON_TYPE_URL, value=b"{not json")


async def test_unknown_session_is_not_found_before_everything_else(bridge: Bridge) -> None:
    answer = await bridge.failure(request("nobody", "nowhere", {"x": BAD}))
    assert answer == (grpc.StatusCode.NOT_FOUND, "Session not found: nowhere")


async def test_unknown_tool_is_not_found_before_its_parameters(bridge: Bridge) -> None:
    await bridge.open_session()
    answer = await bridge.failure(request("nobody", parameters={"x": BAD}))
    assert answer == (grpc.StatusCode.NOT_FOUND, "Tool nobody not found for session s")


async def test_tool_that_does_not_stream_is_unimplemented_before_its_parameters(bridge: Bridge) -> None:
    await bridge.open_session()
    answer = await bridge.failure(request("add", parameters={"x": BAD}))
    assert answer == (grpc.StatusCode.UNIMPLEMENTED, NOT_STREAMING.format("add"))


async def test_tool_registered_without_streaming_is_unimplemented(bridge: Bridge) -> None:
    await bridge.open_session()
    await bridge.register("count", streams=False, worker_id="python-1")
    answer = await bridge.failure(request("count"))
    assert answer == (grpc.StatusCode.UNIMPLEMENTED, NOT_STREAMING.format("count"))


async def test_parameter_that_is_not_json_is_invalid_before_the_worker_is_looked_for(bridge: Bridge) -> None:
    await bridge.open_session()
    await bridge.register("count", worker_id="python-140234")
    code, message = await bridge.failure(request("count", parameters={"count": BAD}))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Invalid parameter count: ")
    code, message = await bridge.failure(request("count", parameters={"count": PackedAny(type_url="x/snakepit.integer", value=b"{")}))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Invalid parameter count (x/snakepit.integer): ")


async def test_worker_that_is_not_ours_is_internal(bridge: Bridge) -> None:
    await bridge.open_session()
    await bridge.register("count", worker_id="python-140234")
    assert await bridge.failure(request("count")) == (grpc.StatusCode.INTERNAL, "Worker not found: python-140234")
    assert bridge.pool.requests == []


async def test_a_registered_tool_runs_on_the_worker_it_was_registered_for(bridge: Bridge) -> None:
    await bridge.open_session()
    await bridge.register("count", worker_id="w-1")
    bridge.pool.script = FakeCall.end
    assert [chunk async for chunk in bridge.stub.ExecuteStreamingTool(request())]
    assert [chunk async for chunk in bridge.stub.ExecuteStreamingTool(request("opaque"))]
    assert [wanted.worker_id for wanted in bridge.pool.requests] == ["w-1", None]


async def test_arguments_that_do_not_fit_are_invalid_and_named(bridge: Bridge) -> None:
    await bridge.open_session()
    code, message = await bridge.failure(request("count", parameters={"count": packed("x")}))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert '/count "x" is not of type "integer"' in message


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (GatewayError("pool-saturated", "all busy"), grpc.StatusCode.UNAVAILABLE, "all busy"),
        (GatewayError("session-worker-unavailable", "gone"), grpc.StatusCode.ABORTED, "gone"),
    ],
)
async def test_refusal_by_the_pool_is_its_code(bridge: Bridge, error: GatewayError, code: grpc.StatusCode, message: str) -> None:
    await bridge.open_session()
    bridge.pool.refusal = error
    assert await bridge.failure(request()) == (code, message)


# ExecuteStreamingTool: chunks


async def stream(bridge: Bridge, script: Any, wanted: pb.ExecuteToolRequest | None = None) -> list[pb.ToolChunk]:
    await bridge.open_session()
    bridge.pool.script = script
    return [chunk async for chunk in bridge.stub.ExecuteStreamingTool(wanted or request())]


async def test_chunks_are_forwarded_in_order_and_the_final_is_decorated(bridge: Bridge) -> None:
    def script(call: FakeCall) -> None:
        call.send({"n": 1}, {"n": 2})
        call.send_raw(b'{"n":3}', attributes={0: ChunkAttributes(is_final=True, metadata={"mine": "1"})})
        call.end({"mine": "1"})

    chunks = await stream(bridge, script)
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [
        ("count-1", b'{"n":1}', False),
        ("count-2", b'{"n":2}', False),
        ("count-3", b'{"n":3}', True),
    ]
    assert [dict(chunk.metadata) for chunk in chunks[:2]] == [{}, {}]
    final = dict(chunks[2].metadata)
    assert final.pop("execution_time_ms").isdigit()
    assert final == {"mine": "1", "tool_type": "remote", "worker_id": "w-1"}


async def test_an_empty_final_of_the_worker_is_kept(bridge: Bridge) -> None:
    def script(call: FakeCall) -> None:
        call.send(1)
        call.end(has_final=True)

    chunks = await stream(bridge, script)
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [("count-1", b"1", False), ("count-2", b"", True)]
    assert chunks[1].metadata["tool_type"] == "remote"


async def test_a_missing_final_is_made_up(bridge: Bridge) -> None:
    def script(call: FakeCall) -> None:
        call.send(1, 2)
        call.end(has_final=False)

    chunks = await stream(bridge, script)
    final = chunks[-1]
    assert [chunk.is_final for chunk in chunks] == [False, False, True]
    assert final.chunk_id.startswith("sp-final-")
    assert (final.data, final.metadata["synthetic_final"], final.metadata["chunks_sent"]) == (b"", "true", "2")


async def test_chunks_after_a_final_flow_on(bridge: Bridge) -> None:
    def script(call: FakeCall) -> None:
        call.send_raw(b"1", attributes={0: ChunkAttributes(is_final=True)})
        call.send(2)
        call.end(has_final=True)

    chunks = await stream(bridge, script)
    assert [(chunk.data, chunk.is_final) for chunk in chunks] == [(b"1", True), (b"2", False), (b"", True)]


async def test_raw_bytes_ids_and_metadata_of_the_worker_pass_unchanged(bridge: Bridge) -> None:
    def script(call: FakeCall) -> None:
        attributes = {0: ChunkAttributes(raw=b"\xff\x00", chunk_id="own-7", metadata={"k": "v"})}
        call.send_raw(b'{"$bytes":"/wA="}', attributes=attributes)
        call.end()

    chunk = (await stream(bridge, script))[0]
    assert (chunk.chunk_id, chunk.data, dict(chunk.metadata), chunk.is_final) == ("own-7", b"\xff\x00", {"k": "v"}, False)


async def test_a_failure_comes_after_its_chunks_with_the_workers_own_words(bridge: Bridge) -> None:
    def script(call: FakeCall) -> None:
        call.send(1)
        call.fail(ToolFailed(Code.NOT_FOUND, "no file", raw='{"type":"FileNotFoundError"}'))

    await bridge.open_session()
    bridge.pool.script = script
    call = bridge.stub.ExecuteStreamingTool(request())
    assert (await call.read()).data == b"1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, '{"type":"FileNotFoundError"}')


async def test_arguments_metadata_and_bytes_reach_the_call(bridge: Bridge) -> None:
    bytes_value = PackedAny()
    bytes_value.Pack(BytesValue(value=b"\x01\x02"))
    wanted = request(
        "opaque",
        parameters={"a": packed([1, {"b": None}]), "blob": bytes_value},
        metadata={"k": "v", "binary_format:x": "pickle", "timeout_ms": "1500"},
        binary_parameters={"x": b"\x80"},
    )
    await stream(bridge, FakeCall.end, wanted)
    call = bridge.pool.calls[0].call
    assert (call.arguments, call.binary) == ({"a": [1, {"b": None}]}, {"blob": b"\x01\x02", "x": b"\x80"})
    assert call.metadata == {"k": "v", "correlation_id": call.correlation.request_id}
    assert (call.session_id, call.streaming, call.timeout_s) == ("s", True, 1.5)


@pytest.mark.parametrize(
    ("timeout_ms", "timeout_s"),
    [("250", 0.25), ("0", 900), ("-5", 900), ("soon", 900), ("", 900), ("٣", 900), ("9" * 12, 3600), ("9" * 5000, 900)],
)
async def test_timeout_ms_is_a_positive_number_or_ignored(bridge: Bridge, timeout_ms: str, timeout_s: float) -> None:
    await stream(bridge, FakeCall.end, request(metadata={"timeout_ms": timeout_ms}))
    assert bridge.pool.calls[0].call.timeout_s == timeout_s


async def test_the_clients_deadline_is_the_runs_budget_and_cancels_it(bridge: Bridge) -> None:
    await bridge.open_session()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in bridge.stub.ExecuteStreamingTool(request(), timeout=0.3):
            pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    call = bridge.pool.calls[0]
    assert 0 < call.call.timeout_s < 0.4
    await within(call.cancelled.wait())
    await until(lambda: bridge.hub.open_runs == 0)


@pytest.mark.parametrize("phase", ["queued", "before the first chunk", "between chunks", "blocked in a write"])
async def test_a_client_that_cancels_ends_the_run(bridge: Bridge, phase: str) -> None:
    await bridge.open_session()
    bridge.pool.busy = phase == "queued"
    call = bridge.stub.ExecuteStreamingTool(request())
    reading = asyncio.ensure_future(call.read())
    if phase == "queued":
        waiting: Any = await bridge.pool.next_ticket()
    else:
        waiting = await bridge.pool.next_call()
        if phase != "before the first chunk":
            waiting.send(1)
            await within(reading)
        if phase == "blocked in a write":
            async with asyncio.timeout(10):
                while not waiting.paused:
                    waiting.send("x" * 50_000)
                    await asyncio.sleep(0)
    call.cancel()
    await within(waiting.cancelled.wait())
    await until(lambda: bridge.hub.open_runs == 0)
    await asyncio.gather(reading, return_exceptions=True)


async def test_a_client_that_vanishes_ends_the_run(bridge: Bridge) -> None:
    await bridge.open_session()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{bridge.server.port}", [("grpc.use_local_subchannel_pool", 1)])
    call = pb_grpc.BridgeServiceStub(channel).ExecuteStreamingTool(request())  # type: ignore[no-untyped-call]
    reading = asyncio.ensure_future(call.read())
    waiting = await bridge.pool.next_call()
    await channel.close()
    await within(waiting.cancelled.wait())
    await asyncio.gather(reading, return_exceptions=True)


# ExecuteTool


async def test_execute_tool_answers_its_result(bridge: Bridge) -> None:
    def script(call: FakeCall) -> None:
        call.send(3)
        call.end({"note": "x"})

    await bridge.open_session()
    bridge.pool.script = script
    answer = await bridge.stub.ExecuteTool(request("add", parameters={"a": packed(1), "b": packed(2)}))
    assert (answer.success, answer.error_message, answer.result.type_url, answer.result.value) == (True, "", JSON_TYPE_URL, b"3")
    assert (answer.metadata["tool_type"], answer.metadata["note"]) == ("remote", "x")
    assert answer.metadata["execution_time"].isdigit()
    assert bridge.pool.calls[0].call.streaming is False


@pytest.mark.parametrize(
    ("wanted", "message", "code"),
    [
        (request("add", "nowhere"), "not_found", "NOT_FOUND"),
        (request("nobody"), "Tool nobody not found for session s", "NOT_FOUND"),
        (request("count"), "count streams its results: use /v1/tools/count/stream", "UNIMPLEMENTED"),
        (request("add", parameters={"a": BAD}), "Invalid parameter a: ", "INVALID_ARGUMENT"),
        (request("add"), "add does not take these arguments", "INVALID_ARGUMENT"),
    ],
)
async def test_execute_tool_that_fails_is_ok_with_success_false(
    bridge: Bridge, wanted: pb.ExecuteToolRequest, message: str, code: str
) -> None:
    await bridge.open_session()
    answer = await bridge.stub.ExecuteTool(wanted)
    assert (answer.success, answer.metadata["error_code"]) == (False, code)
    assert answer.error_message.startswith(message)


async def test_execute_tool_says_the_tools_own_failure(bridge: Bridge) -> None:
    await bridge.open_session()
    bridge.pool.script = lambda call: call.fail(ToolFailed(Code.INTERNAL, "boom", raw='{"type":"KeyError"}'))
    answer = await bridge.stub.ExecuteTool(request("add", parameters={"a": packed(1), "b": packed(2)}))
    assert (answer.success, answer.error_message) == (False, 'Remote tool execution failed: {"type":"KeyError"}')


async def test_execute_tool_whose_client_cancels_ends_the_run(bridge: Bridge) -> None:
    await bridge.open_session()
    call = bridge.stub.ExecuteTool(request("opaque"))
    waiting = asyncio.ensure_future(bridge.pool.next_call())
    await until(waiting.done)
    call.cancel()
    await within(waiting.result().cancelled.wait())


# sessions and tools


async def test_ping_answers_pong(bridge: Bridge) -> None:
    answer = await bridge.stub.Ping(pb.PingRequest(message="hello"))
    assert answer.message == "pong: hello"
    assert answer.server_time.seconds > 1_500_000_000


async def test_initialize_is_idempotent_and_get_describes(bridge: Bridge) -> None:
    for _ in range(2):
        answer = await bridge.stub.InitializeSession(pb.InitializeSessionRequest(session_id="s", metadata={"k": "v"}))
        assert answer.success
    session = await bridge.stub.GetSession(pb.GetSessionRequest(session_id="s"))
    assert (session.session_id, dict(session.metadata), session.tool_count) == ("s", {"k": "v"}, 0)


async def test_initialize_of_an_empty_id_is_internal_invalid_id(bridge: Bridge) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bridge.stub.InitializeSession(pb.InitializeSessionRequest())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "invalid_id")


async def test_get_of_an_unknown_session_is_not_found(bridge: Bridge) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bridge.stub.GetSession(pb.GetSessionRequest(session_id="x"))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "Session not found: x")


async def test_cleanup_is_always_a_success(bridge: Bridge) -> None:
    await bridge.open_session()
    for _ in range(2):
        answer = await bridge.stub.CleanupSession(pb.CleanupSessionRequest(session_id="s"))
        assert (answer.success, answer.resources_cleaned) == (True, 1)
    assert len(bridge.sessions) == 0


async def test_heartbeat_says_whether_the_session_is_valid(bridge: Bridge) -> None:
    assert not (await bridge.stub.Heartbeat(pb.HeartbeatRequest(session_id="s"))).session_valid
    await bridge.open_session()
    assert (await bridge.stub.Heartbeat(pb.HeartbeatRequest(session_id="s"))).session_valid


async def test_register_tools_answers_their_ids(bridge: Bridge) -> None:
    await bridge.open_session()
    answer = await bridge.register("mine")
    assert (answer.success, dict(answer.tool_ids)) == (True, {"mine": "s:mine"})
    assert (await bridge.stub.GetSession(pb.GetSessionRequest(session_id="s"))).tool_count == 1


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([pb.ToolRegistration(name="")], '{:invalid_tool_name, ""}'),
        ([pb.ToolRegistration(name="-x")], '{:invalid_tool_name, "-x"}'),
        ([pb.ToolRegistration(name="x" * 65)], "{:invalid_tool_name"),
        ([pb.ToolRegistration(name="known")], '{:duplicate_tool, "known"}'),
        ([pb.ToolRegistration(name="new"), pb.ToolRegistration(name="new")], '{:duplicate_tool, "new"}'),
        ([pb.ToolRegistration(name="m", metadata={str(n): "" for n in range(33)})], "{:metadata_too_large"),
        ([pb.ToolRegistration(name="m", metadata={"k": "x" * 4096})], "{:metadata_too_large"),
        ([pb.ToolRegistration(name=f"t{n}") for n in range(TOOLS_LIMIT)], "too_many_tools"),
    ],
)
async def test_register_tools_takes_all_or_none(bridge: Bridge, tools: list[pb.ToolRegistration], message: str) -> None:
    await bridge.open_session()
    await bridge.register("known")
    wanted = pb.RegisterToolsRequest(session_id="s", tools=[pb.ToolRegistration(name="good"), *tools], worker_id="w-1")
    answer = await bridge.stub.RegisterTools(wanted)
    assert not answer.success
    assert answer.error_message.startswith(message)
    assert (await bridge.stub.GetSession(pb.GetSessionRequest(session_id="s"))).tool_count == 1


async def test_register_tools_of_an_unknown_session_is_not_found(bridge: Bridge) -> None:
    answer = await bridge.register("mine")
    assert (answer.success, answer.error_message) == (False, "not_found")


@pytest.mark.parametrize(("value", "streams"), [("true", True), ("1", True), ("false", False), ("yes", False)])
async def test_streaming_may_be_registered_by_metadata(bridge: Bridge, value: str, streams: bool) -> None:
    await bridge.open_session()
    tool = pb.ToolRegistration(name="count", metadata={"supports_streaming": value})
    await bridge.stub.RegisterTools(pb.RegisterToolsRequest(session_id="s", tools=[tool], worker_id="w-1"))
    if streams:
        assert await stream(bridge, FakeCall.end)
    else:
        assert (await bridge.failure(request()))[0] == grpc.StatusCode.UNIMPLEMENTED


async def test_the_hosts_own_tools_are_none(bridge: Bridge) -> None:
    assert not (await bridge.stub.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id="s"))).tools
    wanted = pb.ExecuteElixirToolRequest(session_id="s", tool_name="x")
    answer = await bridge.stub.ExecuteElixirTool(wanted)
    assert (answer.success, answer.error_message) == (False, "not_found")
    await bridge.open_session()
    answer = await bridge.stub.ExecuteElixirTool(wanted)
    assert (answer.success, answer.error_message) == (False, "Tool x is not an Elixir tool")


async def test_telemetry_stream_takes_controls_and_ends(bridge: Bridge) -> None:
    call = bridge.stub.StreamTelemetry()
    await call.write(pb.TelemetryControl(toggle=pb.TelemetryToggle(enabled=True)))
    await call.done_writing()
    assert [event async for event in call] == []


# health and reflection


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_is_serving_until_the_drain(bridge: Bridge, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(bridge.channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == health_pb2.HealthCheckResponse.SERVING
    await bridge.server.drain()
    assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_services(bridge: Bridge) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(bridge.channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await within(call.read())
    await call.done_writing()
    names = {service.name for service in answer.list_services_response.service}
    assert {"snakepit.bridge.BridgeService", "grpc.health.v1.Health"} <= names
    call.cancel()


async def test_an_address_that_is_taken_is_an_os_error(bridge: Bridge) -> None:
    service = BridgeService(bridge.hub, bridge.sessions)
    with pytest.raises(OSError, match="can't be bound"):
        await BridgeServer(service, f"127.0.0.1:{bridge.server.port}").start()
