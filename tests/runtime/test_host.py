"""host.py: a worker process beside a Snakepit host (here a gRPC server that notes what it is asked)."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, struct_pb2

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc

from .conftest import Process, eventually, request

ADAPTER = f"{Path(__file__).with_name('adapter_for_processes.py')}:Adapter"
FAST = json.dumps({"interval_ms": 50, "timeout_ms": 500, "max_missed_heartbeats": 2})


class Host(bridge_grpc.BridgeServiceServicer):
    """Answers as a Snakepit host does; `broken` methods answer UNIMPLEMENTED, `slow` ones not at all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.broken: set[str] = set()
        self.slow: set[str] = set()
        self.address = ""
        self.server: grpc.aio.Server

    def count(self, method: str) -> int:
        return Counter(name for name, _ in self.asked)[method]

    async def _note(self, method: str, message: Any, context: Any) -> None:
        self.asked.append((method, message))
        if method in self.broken:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no {method} here")
        if method in self.slow:
            await asyncio.Event().wait()

    async def Ping(self, message: Any, context: Any) -> Any:
        await self._note("Ping", message, context)
        return bridge.PingResponse(message="pong")

    async def InitializeSession(self, message: Any, context: Any) -> Any:
        await self._note("InitializeSession", message, context)
        return bridge.InitializeSessionResponse(success=True)

    async def CleanupSession(self, message: Any, context: Any) -> Any:
        await self._note("CleanupSession", message, context)
        return bridge.CleanupSessionResponse(success=True, resources_cleaned=42)

    async def GetSession(self, message: Any, context: Any) -> Any:
        await self._note("GetSession", message, context)
        return bridge.GetSessionResponse(session_id=message.session_id, tool_count=7)

    async def Heartbeat(self, message: Any, context: Any) -> Any:
        await self._note("Heartbeat", message, context)
        return bridge.HeartbeatResponse(session_valid=False)

    async def RegisterTools(self, message: Any, context: Any) -> Any:
        await self._note("RegisterTools", message, context)
        return bridge.RegisterToolsResponse(success=False, error_message="not_found")

    async def GetExposedElixirTools(self, message: Any, context: Any) -> Any:
        await self._note("GetExposedElixirTools", message, context)
        return bridge.GetExposedElixirToolsResponse(tools=[bridge.ToolSpec(name="shout")])

    async def ExecuteElixirTool(self, message: Any, context: Any) -> Any:
        await self._note("ExecuteElixirTool", message, context)
        arguments = {name: json.loads(value.value) for name, value in message.parameters.items()}
        if not arguments["word"]:
            return bridge.ExecuteElixirToolResponse(success=False, error_message="nothing to shout")
        result = any_pb2.Any()
        struct = struct_pb2.Struct()
        struct.update({"shouted": arguments["word"].upper() * arguments["times"]})
        result.Pack(struct)
        return bridge.ExecuteElixirToolResponse(success=True, result=result)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    host.server = grpc.aio.server()
    bridge_grpc.add_BridgeServiceServicer_to_server(host, host.server)
    host.address = f"127.0.0.1:{host.server.add_insecure_port('127.0.0.1:0')}"
    await host.server.start()
    yield host
    await host.server.stop(None)


@pytest.fixture
def start(spawn: Callable[..., Any], host: Host, tmp_path: Path) -> Callable[..., Any]:
    async def start(heartbeat: str = '{"enabled": false}', **env: str) -> Process:
        process: Process = await spawn(
            "--adapter",
            ADAPTER,
            "--elixir-address",
            host.address,
            "--worker-id",
            "w-1",
            env={"JOURNAL": str(tmp_path / "journal"), "SNAKEPIT_HEARTBEAT_CONFIG": heartbeat, **env},
        )
        return process

    return start


async def values(process: Process, session_id: str) -> list[Any]:
    call = process.client.stream("count", session_id=session_id)
    return [json.loads(chunk.data) async for chunk in call if chunk.data]


async def test_host_is_pinged_before_the_worker_is_ready(start: Callable[..., Any], host: Host) -> None:
    await start()
    assert [(name, message.message) for name, message in host.asked] == [("Ping", "connection_test")]


async def test_session_is_initialised_for_each_execution_and_tools_registered_once(start: Callable[..., Any], host: Host) -> None:
    process = await start()
    for session_id in ("a", "a", "b"):
        assert await values(process, session_id) == [0, 1, 2]
    asked = [(name, message.session_id) for name, message in host.asked if name != "Ping"]
    assert asked == [
        ("InitializeSession", "a"),
        ("RegisterTools", "a"),
        ("InitializeSession", "a"),
        ("InitializeSession", "b"),
        ("RegisterTools", "b"),
    ]
    registration = next(message for name, message in host.asked if name == "RegisterTools")
    assert registration.worker_id == "w-1"
    count = next(tool for tool in registration.tools if tool.name == "count")
    assert count.supports_streaming
    assert [(p.name, p.type, p.required, p.validation_json) for p in count.parameters] == [
        ("n", "int", False, '{"default":3}'),
        ("pause_s", "float", False, '{"default":0.0}'),
    ]
    assert count.metadata["adapter_class"] == "Adapter"


async def test_host_that_fails_does_not_fail_executions(start: Callable[..., Any], host: Host) -> None:
    process = await start()
    host.broken |= {"InitializeSession", "RegisterTools"}
    assert await values(process, "a") == [0, 1, 2]


async def test_host_that_does_not_answer_delays_one_call_and_blocks_nothing(start: Callable[..., Any], host: Host) -> None:
    process = await start()
    host.slow |= {"InitializeSession"}
    delayed = asyncio.create_task(values(process, "a"))
    await eventually(lambda: host.count("InitializeSession") == 1)
    await process.client.bridge.Ping(bridge.PingRequest(), timeout=1)
    assert not delayed.done()
    assert await asyncio.wait_for(delayed, 10) == [0, 1, 2]


async def test_session_calls_are_passed_on(start: Callable[..., Any], host: Host) -> None:
    stub = (await start()).client.bridge
    assert (await stub.InitializeSession(bridge.InitializeSessionRequest(session_id="s", metadata={"k": "v"}))).success
    assert dict(host.asked[-1][1].metadata) == {"k": "v"}
    assert (await stub.GetSession(bridge.GetSessionRequest(session_id="s"))).tool_count == 7
    assert not (await stub.Heartbeat(bridge.HeartbeatRequest(session_id="s"))).session_valid
    assert (await stub.CleanupSession(bridge.CleanupSessionRequest(session_id="s"))).resources_cleaned == 42
    host.broken.add("GetSession")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSession(bridge.GetSessionRequest(session_id="s"))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, "no GetSession here")


async def test_heartbeats_run_for_a_session_until_it_is_cleaned_up(start: Callable[..., Any], host: Host) -> None:
    process = await start(FAST)
    await values(process, "a")
    await values(process, "a")
    await eventually(lambda: host.count("Heartbeat") >= 3)
    assert {message.session_id for name, message in host.asked if name == "Heartbeat"} == {"a"}
    await process.client.bridge.CleanupSession(bridge.CleanupSessionRequest(session_id="a"))
    host.asked.clear()
    await values(process, "b")
    await eventually(lambda: host.count("Heartbeat") >= 3)
    assert {message.session_id for name, message in host.asked if name == "Heartbeat"} == {"b"}


async def test_dependent_worker_exits_0_when_the_host_is_lost(start: Callable[..., Any], host: Host) -> None:
    process = await start(FAST)
    await values(process, "a")
    await host.server.stop(None)
    assert await asyncio.wait_for(process.process.wait(), 10) == 0


async def test_independent_worker_stays_when_the_host_is_lost(start: Callable[..., Any], host: Host) -> None:
    process = await start(json.dumps({"interval_ms": 20, "timeout_ms": 100, "max_missed_heartbeats": 1, "dependent": False}))
    await values(process, "a")
    host.broken.add("Heartbeat")
    misses = host.count("Heartbeat")
    await eventually(lambda: host.count("Heartbeat") > misses + 5)
    assert await values(process, "a") == [0, 1, 2]


async def test_tool_calls_the_hosts_tools(start: Callable[..., Any], host: Host) -> None:
    process = await start()
    assert await process.client.result("host_word", word="hey") == {"shouted": "HEYHEY"}
    assert await process.client.result("host_tools") == ["shout"]
    response = await process.client.call("host_word", word="")
    assert json.loads(response.error_message)["message"] == "the host's tool shout failed: nothing to shout"
    parameters = next(message.parameters for name, message in host.asked if name == "ExecuteElixirTool")
    assert {value.type_url for value in parameters.values()} == {"type.googleapis.com/google.protobuf.StringValue"}


async def test_without_a_host_its_tools_are_none_and_calling_one_says_so(spawn: Callable[..., Any], tmp_path: Path) -> None:
    process = await spawn("--adapter", ADAPTER, env={"JOURNAL": str(tmp_path / "journal")})
    assert await process.client.result("host_tools") == []
    response = await process.client.bridge.ExecuteTool(request("host_word", word="x"))
    assert "runs without a host" in response.error_message


async def test_sessions_beyond_the_bound_lose_the_oldest_heartbeat(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.runtime.adapter import BaseAdapter
    from gateway.runtime.heartbeat import HeartbeatSettings
    from gateway.runtime.host import HostLink
    from gateway.runtime.loading import inspect_adapter
    from gateway.runtime.tool import tool

    class Tools(BaseAdapter):
        @tool()
        def hello(self) -> None: ...

    monkeypatch.setattr("gateway.runtime.host.SESSION_LIMIT", 2)
    async with asyncio.TaskGroup() as group:
        settings = HeartbeatSettings(interval_ms=10)
        link = HostLink(host.address, inspect_adapter(Tools), settings, worker_id="w", group=group, lost=lambda: None)
        for session_id in ("a", "b", "a", "c"):
            await link.prepare(session_id)
        host.asked.clear()
        await eventually(lambda: host.count("Heartbeat") >= 8)
        assert {message.session_id for name, message in host.asked[2:] if name == "Heartbeat"} == {"a", "c"}
        await link.aclose()
