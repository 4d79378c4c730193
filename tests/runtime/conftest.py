"""Workers for tests: an adapter class behind a real gRPC server in this process, and the worker process itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc
from gateway.rpc import worker_pb2 as worker
from gateway.rpc import worker_pb2_grpc as worker_grpc
from gateway.runtime.executor import Executor
from gateway.runtime.loading import inspect_adapter
from gateway.runtime.servicer import BridgeServicer, Desk, WorkerServicer
from gateway.runtime.sessions import LocalSessions

ROOT = Path(__file__).parents[2]
OPTIONS = (("grpc.max_receive_message_length", 128 << 20),)


def request(tool: str, /, session_id: str = "", **arguments: Any) -> bridge.ExecuteToolRequest:
    parameters = {
        name: any_pb2.Any(type_url="type.googleapis.com/google.protobuf.StringValue", value=json.dumps(value).encode())
        for name, value in arguments.items()
    }
    return bridge.ExecuteToolRequest(session_id=session_id, tool_name=tool, parameters=parameters)


class Client:
    """A gRPC client of one worker."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, OPTIONS)
        self.bridge = bridge_grpc.BridgeServiceStub(self.channel)
        self.worker = worker_grpc.WorkerServiceStub(self.channel)

    def stream(self, tool: str, /, *, timeout: float | None = 20, run_id: str | None = None, session_id: str = "", **arguments: Any) -> Any:
        """One call of ExecuteStreamingTool."""
        metadata = (("x-gateway-run-id", run_id),) if run_id else None
        return self.bridge.ExecuteStreamingTool(request(tool, session_id, **arguments), timeout=timeout, metadata=metadata)

    async def chunks(self, tool: str, /, **arguments: Any) -> list[bridge.ToolChunk]:
        return [chunk async for chunk in self.stream(tool, **arguments)]

    async def values(self, tool: str, /, **arguments: Any) -> list[Any]:
        """The values of all chunks that carry one."""
        return [json.loads(chunk.data) for chunk in await self.chunks(tool, **arguments) if chunk.data]

    async def batches(self, tool: str, /, *, timeout: float | None = 20, **arguments: Any) -> list[list[bytes]]:
        """The data of each message's chunks, in order."""
        call = self.worker.StreamTool(request(tool, **arguments), timeout=timeout)
        return [[*message.payloads, *(chunk.data for chunk in message.chunks)] async for message in call]

    async def failure(self, tool: str, /, **arguments: Any) -> tuple[list[Any], grpc.StatusCode, dict[str, Any]]:
        """What came before the error, its status and its detail."""
        call = self.stream(tool, **arguments)
        chunks = await until_end(call)
        assert await call.code() is not grpc.StatusCode.OK
        return [json.loads(chunk.data) for chunk in chunks], await call.code(), json.loads(await call.details())

    async def call(self, tool: str, /, **arguments: Any) -> bridge.ExecuteToolResponse:
        return await self.bridge.ExecuteTool(request(tool, **arguments), timeout=20)

    async def result(self, tool: str, /, **arguments: Any) -> Any:
        response = await self.call(tool, **arguments)
        assert response.success, response.error_message
        return json.loads(response.result.value)

    async def stopped(self, run_id: str, timeout_s: float = 5) -> bool:
        answer = await self.worker.AwaitStop(worker.AwaitStopRequest(run_id=run_id, timeout_ms=round(timeout_s * 1000)))
        return answer.stopped


class Served(Client):
    """A client of a worker in this process, with a look at its inside."""

    def __init__(self, address: str, executor: Executor) -> None:
        super().__init__(address)
        self.executor = executor


async def until_end(call: Any) -> list[Any]:
    """Read a call until it is over, well or not; `call.code()` tells. A call that was cancelled here just ends."""
    messages = []
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
    return messages


Serve = Callable[..., Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve an adapter class: `client = await serve(Adapter)`."""
    async with AsyncExitStack() as stack:

        async def start(adapter: type[Any], *, concurrency: int = 4, stop_timeout_s: float = 10.0) -> Served:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            loaded = inspect_adapter(adapter)
            executor = Executor(group, concurrency=concurrency, stop_timeout_s=stop_timeout_s)
            desk = Desk("worker-1", loaded, executor, LocalSessions(len(loaded.tools)))
            server = grpc.aio.server(options=(("grpc.max_send_message_length", 128 << 20), ("grpc.so_reuseport", 0)))
            bridge_grpc.add_BridgeServiceServicer_to_server(BridgeServicer(desk), server)
            worker_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(desk), server)  # type: ignore[no-untyped-call]
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            client = Served(f"127.0.0.1:{port}", executor)
            stack.push_async_callback(client.channel.close)
            return client

        yield start


class Process:
    """A worker process that has said it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, ready: str) -> None:
        self.process = process
        self.ready = ready
        self.address = ready if ready.startswith("unix:") else f"127.0.0.1:{ready}"
        self.client = Client(self.address)

    async def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 10)


async def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait until `condition` gives something true, looking again every 10 ms, and return it."""
    async with asyncio.timeout(timeout_s):
        while not (value := condition()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return value


async def run_worker(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> asyncio.subprocess.Process:
    """Start a worker process, ready or not."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEPIT_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.runtime",
        *arguments,
        env={**clean, "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        **options,
    )


@pytest.fixture
async def spawn(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a worker process and wait until it is ready: `process = await spawn("--adapter", …)`."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Process:
            ready = tmp_path / f"ready-{len(os.listdir(tmp_path))}"
            process = await run_worker(*arguments, env={"SNAKEPIT_READY_FILE": str(ready), **(env or {})}, **options)
            stack.push_async_callback(reap, process)
            await eventually(lambda: ready.exists() or process.returncode is not None, 20)
            if process.returncode is not None:
                assert process.stderr is not None
                raise AssertionError((await process.stderr.read()).decode())
            worker_process = Process(process, ready.read_text())
            stack.push_async_callback(worker_process.client.channel.close)
            return worker_process

        async def reap(process: asyncio.subprocess.Process) -> None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

        yield start
