"""The fake worker does what the real one was seen to do: else the other tests here would prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as ProtobufAny
from google.protobuf.wrappers_pb2 import StringValue

from gateway.codec.values import JSON_TYPE_URL
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.workers.snakepit import THREADS
from tests.e2e.harness import ROOT, until
from tests.snakepit.conftest import ADAPTERS, FAKE_WORKER


class ElixirHost(pb_grpc.BridgeServiceServicer):
    """A host that writes down what it is asked. `heartbeat` False: it knows no heartbeats."""

    def __init__(self, *, heartbeat: bool = True) -> None:
        self.asked: list[str] = []
        self.heartbeat = heartbeat
        self.slow_s = 0.0

    async def Ping(self, request: Any, context: Any) -> Any:
        self.asked.append(f"Ping {request.message}")
        return pb.PingResponse()

    async def InitializeSession(self, request: Any, context: Any) -> Any:
        self.asked.append(f"InitializeSession {request.session_id}")
        await asyncio.sleep(self.slow_s)
        return pb.InitializeSessionResponse(success=True)

    async def RegisterTools(self, request: Any, context: Any) -> Any:
        self.asked.append(f"RegisterTools {request.session_id}")
        return pb.RegisterToolsResponse(success=False, error_message="no")

    async def CleanupSession(self, request: Any, context: Any) -> Any:
        return pb.CleanupSessionResponse(success=True)

    async def Heartbeat(self, request: Any, context: Any) -> Any:
        if not self.heartbeat:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no heartbeats")
        self.asked.append(f"Heartbeat {request.session_id}")
        return pb.HeartbeatResponse(session_valid=False)


class Fake:
    """A running fake worker, with a stub of it."""

    def __init__(self, host: ElixirHost, process: subprocess.Popen[bytes], stub: Any) -> None:
        self.host = host
        self.process = process
        self.stub = stub

    def stream(self, tool: str, session_id: str = "s", timeout: float | None = 20, **arguments: Any) -> Any:
        return self.stub.ExecuteStreamingTool(request_of(tool, session_id, **arguments), timeout=timeout)


def request_of(tool: str, session_id: str = "s", **arguments: Any) -> pb.ExecuteToolRequest:
    request = pb.ExecuteToolRequest(session_id=session_id, tool_name=tool)
    for name, value in arguments.items():
        request.parameters[name].CopyFrom(ProtobufAny(type_url=JSON_TYPE_URL, value=json.dumps(value).encode()))
    return request


@contextlib.asynccontextmanager
async def running(directory: Path, *, heartbeat: bool = True, **environment: str) -> AsyncIterator[Fake]:
    host = ElixirHost(heartbeat=heartbeat)
    server = grpc.aio.server()
    pb_grpc.add_BridgeServiceServicer_to_server(host, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready = directory / "ready"
    told = {"SNAKEPIT_READY_FILE": str(ready), "PYTHONPATH": str(ROOT), "SNAKEPIT_OTEL_CONSOLE": "false", **environment}
    command = [sys.executable, str(FAKE_WORKER), "--adapter", f"{ADAPTERS}.Tools", "--elixir-address", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, env={**os.environ, **told}, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    options = [("grpc.max_receive_message_length", -1), ("grpc.absolute_max_metadata_size", 1 << 20), ("grpc.max_metadata_size", 1 << 20)]
    try:
        await until(ready.exists, "the ready file")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ready.read_text()}", options) as channel:
            yield Fake(host, process, pb_grpc.BridgeServiceStub(channel))  # type: ignore[no-untyped-call]
    finally:
        process.kill()
        process.wait()
        await server.stop(0)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    async with running(tmp_path) as fake:
        yield fake


async def test_host_is_asked_in_the_observed_order(fake: Fake) -> None:
    assert fake.host.asked == ["Ping connection_test"]
    chunks = [chunk async for chunk in fake.stream("count", n=2)]
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [
        ("count-1", b'{"i": 0}', False),
        ("count-2", b'{"i": 1}', False),
        ("count-3", b"", True),
    ]
    await until(lambda: "Heartbeat s" in fake.host.asked, "a heartbeat")
    calls = [line for line in fake.host.asked if not line.startswith("Heartbeat")]
    assert calls == ["Ping connection_test", "InitializeSession s", "RegisterTools s"]
    assert [chunk.is_final async for chunk in fake.stream("nothing")] == [True]
    # Refused or not, tools are registered once.
    assert [line for line in fake.host.asked if not line.startswith("Heartbeat")] == [*calls, "InitializeSession s"]


async def test_parameter_that_is_no_json_fails_before_a_tool_runs_and_after_it_registered(fake: Fake, tmp_path: Path) -> None:
    for value in (b"", b"NaN", StringValue(value="packed").SerializeToString()):
        request = pb.ExecuteToolRequest(session_id="s", tool_name="count")
        request.parameters["n"].CopyFrom(ProtobufAny(type_url=JSON_TYPE_URL, value=value))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await fake.stub.ExecuteStreamingTool(request).read()
        assert failure.value.code() is grpc.StatusCode.INTERNAL
        assert json.loads(failure.value.details() or "")["type"] == "JSONDecodeError"
    assert "RegisterTools s" in fake.host.asked


async def test_unserialisable_chunk_hangs_the_stream(fake: Fake) -> None:
    call = fake.stream("unserialisable", after=1, timeout=0.7)
    assert (await call.read()).data == b"0"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call.read()
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await fake.stub.ExecuteTool(request_of("add", a=1))


async def test_streams_beyond_the_threads_get_nothing(fake: Fake, tmp_path: Path) -> None:
    calls = [fake.stream("held", gate=str(tmp_path / "gate")) for _ in range(THREADS)]
    assert {(await call.read()).data for call in calls} == {b"started"}
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await fake.stub.ExecuteTool(request_of("add", a=1), timeout=0.5)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # Its event loop is well.
    assert (await fake.stub.Ping(pb.PingRequest(message="x"))).message == "Pong from Python: x"
    (tmp_path / "gate").touch()


async def test_reader_that_stalls_and_leaves_costs_a_thread_and_then_sigterm_is_ignored(fake: Fake) -> None:
    for number in range(THREADS):
        call = fake.stream("flood", size=200_000)
        await call.read()
        # Until the transport's buffers and the queue are full: the stalled reader is the point.
        await asyncio.sleep(1.0 if number == 0 else 0.5)
        call.cancel()
    with pytest.raises(grpc.aio.AioRpcError):
        await fake.stub.ExecuteTool(request_of("add", a=1), timeout=1)
    fake.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        await asyncio.to_thread(fake.process.wait, 4)


async def test_sigterm_ends_an_idle_one_with_code_0(fake: Fake) -> None:
    fake.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(fake.process.wait, 10) == 0


async def test_host_without_heartbeats_is_lost_after_three(tmp_path: Path) -> None:
    config = '{"interval_ms":50,"timeout_ms":100}'
    async with running(tmp_path, heartbeat=False, SNAKEPIT_HEARTBEAT_CONFIG=config) as fake:
        assert [chunk.is_final async for chunk in fake.stream("nothing")] == [True]
        assert await asyncio.to_thread(fake.process.wait, 10) == 0


async def test_slow_host_freezes_it(fake: Fake) -> None:
    fake.host.slow_s = 0.5
    call = fake.stub.ExecuteTool(request_of("add", a=1))
    await until(lambda: "InitializeSession s" in fake.host.asked, "the call to the host")
    began = asyncio.get_running_loop().time()
    await fake.stub.Ping(pb.PingRequest(message="x"))
    assert asyncio.get_running_loop().time() - began > 0.2
    await call


def test_wrong_use_is_exit_code_2() -> None:
    assert subprocess.run([sys.executable, str(FAKE_WORKER), "--port", "0"], check=False, capture_output=True).returncode == 2
