"""The host that a Snakepit worker sees, call by call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as ProtobufAny

from gateway.host.listener import Host
from gateway.host.registration import METADATA_BYTES_LIMIT, TOOLS_LIMIT
from gateway.host.sessions import HostSession
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc


class Lookup:
    """Host tools, as the listener is given them."""

    def specs(self) -> Sequence[pb.ToolSpec]:
        return [pb.ToolSpec(name="lookup")]

    async def execute(self, session_id: str, name: str, parameters: Mapping[str, ProtobufAny]) -> pb.ExecuteElixirToolResponse:
        return pb.ExecuteElixirToolResponse(success=True, result=parameters["key"])


class Worker:
    """A worker's stub of its host, and its session."""

    def __init__(self, host: Host, stub: Any) -> None:
        self.host = host
        self.stub = stub
        self.session: HostSession = host.admit("w-1")

    async def register(self, *tools: pb.ToolRegistration, session_id: str | None = None) -> pb.RegisterToolsResponse:
        request = pb.RegisterToolsRequest(session_id=self.session.id if session_id is None else session_id, tools=tools)
        answer: pb.RegisterToolsResponse = await self.stub.RegisterTools(request)
        return answer


@pytest.fixture(params=[None, Lookup()], ids=["bare", "tools"])
async def worker(request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    host = Host(tools=request.param)
    await host.start()
    async with grpc.aio.insecure_channel(host.address) as channel:
        yield Worker(host, pb_grpc.BridgeServiceStub(channel))  # type: ignore[no-untyped-call]
    await host.stop()


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_ping_is_answered_before_there_is_any_worker() -> None:
    host = Host()
    await host.start()
    assert host.address.startswith("127.0.0.1:")
    async with grpc.aio.insecure_channel(host.address) as channel:
        answer = await pb_grpc.BridgeServiceStub(channel).Ping(pb.PingRequest(message="connection_test"))  # type: ignore[no-untyped-call]
    assert answer.message == "pong: connection_test"
    await host.stop()
    await host.stop()


async def test_session_of_ours_is_there_lives_and_is_described(worker: Worker) -> None:
    session_id = worker.session.id
    assert (await worker.stub.InitializeSession(pb.InitializeSessionRequest(session_id=session_id))).success
    assert (await worker.stub.Heartbeat(pb.HeartbeatRequest(session_id=session_id))).session_valid
    await worker.register(pb.ToolRegistration(name="t"))
    described = await worker.stub.GetSession(pb.GetSessionRequest(session_id=session_id))
    assert (described.session_id, described.tool_count) == (session_id, 1)
    cleaned = await worker.stub.CleanupSession(pb.CleanupSessionRequest(session_id=session_id))
    assert (cleaned.success, cleaned.resources_cleaned) == (True, 1)
    # A worker that was told to clean up lives on.
    assert (await worker.stub.Heartbeat(pb.HeartbeatRequest(session_id=session_id))).session_valid


@pytest.mark.parametrize("session_id", ["", "s", "gateway_w-1", "gateway_w-1_" + "0" * 32])
async def test_session_that_is_not_ours_gets_snakepits_failures(worker: Worker, session_id: str) -> None:
    stub = worker.stub
    assert await failure(stub.InitializeSession(pb.InitializeSessionRequest(session_id=session_id))) == (
        grpc.StatusCode.INTERNAL,
        "invalid_id",
    )
    assert await failure(stub.GetSession(pb.GetSessionRequest(session_id=session_id))) == (
        grpc.StatusCode.NOT_FOUND,
        f"Session not found: {session_id}",
    )
    assert not (await stub.Heartbeat(pb.HeartbeatRequest(session_id=session_id))).session_valid
    refused = await worker.register(pb.ToolRegistration(name="evil"), session_id=session_id)
    assert (refused.success, refused.error_message) == (False, "not_found")
    assert not (await stub.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id=session_id))).tools
    executed = await stub.ExecuteElixirTool(pb.ExecuteElixirToolRequest(session_id=session_id, tool_name="lookup"))
    assert (executed.success, executed.error_message) == (False, f"Session not found: {session_id}")


async def test_session_that_was_dismissed_is_not_ours_any_more(worker: Worker) -> None:
    worker.host.dismiss(worker.session)
    assert (await worker.register(pb.ToolRegistration(name="t"))).error_message == "not_found"


async def test_tools_are_registered_and_another_time_take_the_place_of_the_first(worker: Worker) -> None:
    answer = await worker.register(pb.ToolRegistration(name="t"), pb.ToolRegistration(name="u"))
    assert dict(answer.tool_ids) == {"t": f"{worker.session.id}:t", "u": f"{worker.session.id}:u"}
    first = worker.session.tools
    await worker.register(pb.ToolRegistration(name="t"), pb.ToolRegistration(name="u"))
    assert worker.session.tools is first
    await worker.register(pb.ToolRegistration(name="v"))
    assert [tool.name for tool in worker.session.tools or ()] == ["v"]


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([pb.ToolRegistration(name="a"), pb.ToolRegistration(name="no/slash")], '{:invalid_tool_name, "no/slash"}'),
        ([pb.ToolRegistration(name="x" * 65)], f'{{:invalid_tool_name, "{"x" * 64}"}}'),
        ([pb.ToolRegistration(name="a"), pb.ToolRegistration(name="a")], '{:duplicate_tool, "a"}'),
        ([pb.ToolRegistration(name="a", metadata={"k": "v" * METADATA_BYTES_LIMIT})], "{:metadata_too_large, "),
        ([pb.ToolRegistration(name=f"t{number}") for number in range(TOOLS_LIMIT + 1)], "{:too_many_tools, "),
        ([pb.ToolRegistration(name="a", description="x" * 5_000_000)], "{:request_too_large, "),
    ],
    ids=["name", "long name", "duplicate", "metadata", "too many", "too large"],
)
async def test_tools_that_can_not_be_registered_are_refused_all_together(
    worker: Worker, tools: list[pb.ToolRegistration], message: str
) -> None:
    answer = await worker.register(*tools)
    assert not answer.success
    assert answer.error_message.startswith(message)
    assert worker.session.tools is None
    assert worker.session.refusal == answer.error_message


async def test_hosts_own_tools_are_listed_and_executed_where_there_are_any(worker: Worker, request: pytest.FixtureRequest) -> None:
    session_id = worker.session.id
    listed = await worker.stub.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id=session_id))
    key = ProtobufAny(type_url="type.googleapis.com/google.protobuf.StringValue", value=b'"k"')
    answer = await worker.stub.ExecuteElixirTool(
        pb.ExecuteElixirToolRequest(session_id=session_id, tool_name="lookup", parameters={"key": key})
    )
    if "tools" in request.node.callspec.id:
        assert [tool.name for tool in listed.tools] == ["lookup"]
        assert (answer.success, answer.result) == (True, key)
    else:
        assert not listed.tools
        assert (answer.success, answer.error_message) == (False, "Tool lookup is not an Elixir tool")


async def test_what_is_a_workers_to_serve_is_unimplemented(worker: Worker) -> None:
    assert (await failure(worker.stub.ExecuteTool(pb.ExecuteToolRequest())))[0] is grpc.StatusCode.UNIMPLEMENTED
    assert (await failure(worker.stub.ExecuteStreamingTool(pb.ExecuteToolRequest()).read()))[0] is grpc.StatusCode.UNIMPLEMENTED
    assert (await failure(worker.stub.StreamTelemetry(iter(())).read()))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_address_that_is_taken_is_an_error_that_names_it() -> None:
    first, second = Host(), Host()
    await first.start()
    second = Host(first.address)
    with pytest.raises(OSError, match=f"the host's address {first.address} can't be bound"):
        await second.start()
    await first.stop()


async def test_host_on_every_interface_is_found_on_loopback() -> None:
    host = Host("0.0.0.0:0")
    await host.start()
    assert host.address.startswith("127.0.0.1:")
    await host.stop()
    with pytest.raises(RuntimeError):
        _ = host.address
    await asyncio.sleep(0)
