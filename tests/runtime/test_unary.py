"""ExecuteTool, Describe and the small calls, over real gRPC."""

from __future__ import annotations

import json
import threading
from typing import Any

import grpc
import jsonschema
import pytest

import gateway
from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import worker_pb2 as worker
from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.failure import ToolError
from gateway.runtime.tool import tool

from .conftest import Serve, request


class Tools(BaseAdapter):
    @tool(description="Echo a value")
    def echo(self, value: Any) -> Any:
        """Echo.

        Args:
            value: Anything.
        """
        return value

    @tool()
    async def echo_async(self, value: Any) -> Any:
        return value

    @tool()
    def nothing(self) -> None: ...

    @tool()
    def size(self, data: bytes) -> int:
        return len(data)

    @tool()
    def thread(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    @tool()
    async def thread_async(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    @tool()
    def fail(self, kind: str) -> None:
        raise {"key": KeyError("k"), "own": ToolError("ABORTED", "again", {"n": 1}), "stop": StopIteration(), "exit": SystemExit(1)}[kind]

    @tool()
    async def fail_async(self, kind: str) -> None:
        self.fail(kind)

    @tool()
    def lock(self) -> Any:
        return {"lock": threading.Lock()}

    @tool(supports_streaming=True, required_variables=["v"])
    def numbers(self, n: int = 3) -> Any:
        yield from range(n)


@pytest.mark.parametrize("name", ["echo", "echo_async"])
@pytest.mark.parametrize("value", [1, "text", [1, {"a": None}], 2**70, None, True])
async def test_result_comes_back_as_json(serve: Serve, name: str, value: Any) -> None:
    client = await serve(Tools)
    response = await client.call(name, value=value)
    assert response.success
    assert response.result.type_url == "type.googleapis.com/google.protobuf.StringValue"
    assert json.loads(response.result.value) == value


async def test_no_result_is_null(serve: Serve) -> None:
    client = await serve(Tools)
    assert (await client.call("nothing")).result.value == b"null"


async def test_binary_parameter_reaches_the_tool_as_bytes(serve: Serve) -> None:
    client = await serve(Tools)
    call = request("size")
    call.binary_parameters["data"] = b"\x00\xff\xfe"
    assert json.loads((await client.bridge.ExecuteTool(call)).result.value) == 3


async def test_sync_tool_runs_on_a_thread_and_async_one_on_the_loop(serve: Serve) -> None:
    client = await serve(Tools)
    assert await client.result("thread") is False
    assert await client.result("thread_async") is True


@pytest.mark.parametrize("name", ["fail", "fail_async"])
@pytest.mark.parametrize(
    ("kind", "code", "error_type"),
    [
        ("key", "INTERNAL", "KeyError"),
        ("own", "ABORTED", "ToolError"),
        ("stop", "INTERNAL", "RuntimeError"),
        ("exit", "INTERNAL", "SystemExit"),
    ],
)
async def test_failure_is_ok_status_with_the_detail_and_its_code(serve: Serve, name: str, kind: str, code: str, error_type: str) -> None:
    client = await serve(Tools)
    response = await client.call(name, kind=kind)
    assert not response.success
    assert response.metadata["error_code"] == code
    assert json.loads(response.error_message)["type"] == error_type
    assert await client.result("echo", value=1) == 1


async def test_unserialisable_result_is_a_failure(serve: Serve) -> None:
    client = await serve(Tools)
    response = await client.call("lock")
    assert json.loads(response.error_message)["message"] == "can't serialise thread.lock at $.lock"


async def test_describe_says_who_the_worker_is_and_what_it_offers(serve: Serve) -> None:
    client = await serve(Tools, concurrency=3)
    description = await client.worker.Describe(worker.DescribeRequest())
    assert (description.worker_id, description.concurrency, description.batches) == ("worker-1", 3, True)
    assert description.adapter.endswith(":Tools")
    assert description.version == gateway.__version__
    tools = {described.name: described for described in description.tools}
    assert tools["echo"].description == "Echo a value"
    assert not tools["echo"].supports_streaming
    assert tools["numbers"].supports_streaming
    assert list(tools["numbers"].required_variables) == ["v"]
    schema = json.loads(tools["echo"].parameters_schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["value"]["description"] == "Anything."


async def test_ping_answers_as_snakepit_does(serve: Serve) -> None:
    client = await serve(Tools)
    answer = await client.bridge.Ping(bridge.PingRequest(message="hi"))
    assert answer.message == "Pong from Python: hi"
    assert answer.server_time.seconds > 0


@pytest.mark.parametrize("method", ["RegisterTools", "GetExposedElixirTools", "ExecuteElixirTool"])
async def test_what_only_a_host_can_do_is_unimplemented(serve: Serve, method: str) -> None:
    client = await serve(Tools)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(client.bridge, method)(getattr(bridge, f"{method}Request")())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_telemetry_stream_takes_controls_and_ends_with_its_client(serve: Serve) -> None:
    client = await serve(Tools)
    call = client.bridge.StreamTelemetry(timeout=10)
    await call.write(bridge.TelemetryControl(toggle=bridge.TelemetryToggle(enabled=True)))
    await call.initial_metadata()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_sessions_are_kept_locally_without_a_host(serve: Serve) -> None:
    client = await serve(Tools)
    stub = client.bridge
    assert not (await stub.Heartbeat(bridge.HeartbeatRequest(session_id="s"))).session_valid
    assert (await stub.InitializeSession(bridge.InitializeSessionRequest(session_id="s", metadata={"k": "v"}))).success
    session = await stub.GetSession(bridge.GetSessionRequest(session_id="s"))
    assert (session.session_id, dict(session.metadata), session.tool_count) == ("s", {"k": "v"}, 10)
    assert (await stub.Heartbeat(bridge.HeartbeatRequest(session_id="s"))).session_valid
    assert (await stub.CleanupSession(bridge.CleanupSessionRequest(session_id="s"))).resources_cleaned == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSession(bridge.GetSessionRequest(session_id="s"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "Session not found: s"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.InitializeSession(bridge.InitializeSessionRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_execution_makes_its_session_known(serve: Serve) -> None:
    client = await serve(Tools)
    await client.bridge.ExecuteTool(request("echo", "s7", value=1))
    assert (await client.bridge.Heartbeat(bridge.HeartbeatRequest(session_id="s7"))).session_valid


async def test_session_table_forgets_the_one_used_longest_ago(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    monkeypatch.setattr("gateway.runtime.sessions.SESSION_LIMIT", 2)
    client = await serve(Tools)
    for session_id in ("a", "b", "a", "c"):
        await client.bridge.InitializeSession(bridge.InitializeSessionRequest(session_id=session_id))
    valid = [(await client.bridge.Heartbeat(bridge.HeartbeatRequest(session_id=name))).session_valid for name in "abc"]
    assert valid == [True, False, True]
