"""What the worker answers over gRPC: WorkerService, and the executing half of Snakepit's BridgeService.

Called by grpc.aio on the event loop; calls executor.py. grpc.aio cancels a handler's task when the client
cancels, leaves or runs out of time: the `finally` of each handler then asks the execution to stop, without an
await. Streams end after the tool's cleanup, so an OK means that the worker is free again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from google.protobuf import any_pb2, timestamp_pb2

import gateway
from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc
from gateway.rpc import worker_pb2 as worker
from gateway.rpc import worker_pb2_grpc as worker_grpc
from gateway.runtime import arguments
from gateway.runtime.chunk import Encoded
from gateway.runtime.execution import Execution
from gateway.runtime.executor import Executor
from gateway.runtime.failure import Failure, ToolNotFound, WrongCall, describe
from gateway.runtime.loading import LoadedAdapter
from gateway.runtime.origin import read_origin
from gateway.runtime.session import SessionContext
from gateway.runtime.sessions import Sessions
from gateway.runtime.tool import ToolSpec
from gateway.runtime.wire import Numbering

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

_STATUSES = {status.value[0]: status for status in grpc.StatusCode}
_TEXT_URL = "type.googleapis.com/google.protobuf.StringValue"


@dataclass(frozen=True, slots=True)
class Desk:
    """What both services share: the adapter, who runs its tools, and who keeps sessions."""

    worker_id: str
    adapter: LoadedAdapter
    executor: Executor
    sessions: Sessions

    async def start(self, request: bridge.ExecuteToolRequest, context: Context, *, streaming: bool) -> Execution:
        """Check a request, tell the host of its session, and start the execution.

        Raises:
            Refusal: tool, kind of call or arguments are wrong, or the worker drains.
            Exception: what a validator of the tool's own argument types raises.
        """
        tool = self.adapter.tools.get(request.tool_name)
        if tool is None:
            raise ToolNotFound(f"Tool {request.tool_name} not found in adapter {self.adapter.name}")
        _check_kind(tool, streaming)
        bound = tool.parameters.bind(arguments.decode(request))
        await self.sessions.prepare(request.session_id)
        origin = read_origin(context.invocation_metadata() or ())
        session = SessionContext(
            request.session_id, request.metadata, timeout_s=context.time_remaining(), host=self.sessions.host_tools, origin=origin
        )
        execution = Execution(self.adapter.type, tool, bound, session, run_id=origin.run_id, streaming=streaming)
        self.executor.start(execution)
        return execution

    async def stream(self, request: bridge.ExecuteToolRequest, context: Context, write: Callable[[list[Encoded]], Awaitable[None]]) -> None:
        """Execute a streaming tool; `write` sends the chunks that are there."""
        try:
            execution = await self.start(request, context, streaming=True)
        except Exception as refusal:
            _fail(context, describe(refusal, tool=request.tool_name, session_id=request.session_id))
            return
        try:
            while chunks := await execution.buffer.take():
                await write(chunks)
        except grpc.aio.InternalError:
            # The call was reset while a message was on its way: nobody is left who could be told.
            return
        finally:
            self.executor.cancel(execution)
        if execution.failure is not None:
            _fail(context, execution.failure)


class WorkerServicer(worker_grpc.WorkerServiceServicer):
    """gateway.rpc.WorkerService."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._description = worker.WorkerDescription(
            worker_id=desk.worker_id,
            concurrency=desk.executor.concurrency,
            tools=[
                worker.ToolDescription(
                    name=tool.name,
                    description=tool.description,
                    supports_streaming=tool.supports_streaming,
                    parameters_schema=orjson.dumps(tool.parameters.schema).decode(),
                    required_variables=tool.required_variables,
                )
                for tool in desk.adapter.tools.values()
            ],
            batches=True,
            adapter=desk.adapter.name,
            version=gateway.__version__,
        )

    async def Describe(self, request: worker.DescribeRequest, context: Context) -> worker.WorkerDescription:
        return self._description

    async def StreamTool(self, request: bridge.ExecuteToolRequest, context: Context) -> None:
        numbering = Numbering(request.tool_name)

        async def write(chunks: list[Encoded]) -> None:
            await context.write(numbering.batch(chunks))

        await self._desk.stream(request, context, write)

    async def AwaitStop(self, request: worker.AwaitStopRequest, context: Context) -> worker.AwaitStopResponse:
        stopped = await self._desk.executor.await_stop(request.run_id, request.timeout_ms / 1000)
        return worker.AwaitStopResponse(stopped=stopped)


class BridgeServicer(bridge_grpc.BridgeServiceServicer):
    """snakepit.bridge.BridgeService as a worker serves it. What only a host can do stays UNIMPLEMENTED, as in Snakepit."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Ping(self, request: bridge.PingRequest, context: Context) -> bridge.PingResponse:
        return bridge.PingResponse(message=f"Pong from Python: {request.message}", server_time=now())

    async def ExecuteStreamingTool(self, request: bridge.ExecuteToolRequest, context: Context) -> None:
        numbering = Numbering(request.tool_name)

        async def write(chunks: list[Encoded]) -> None:
            for chunk in chunks:
                await context.write(numbering.single(chunk))

        await self._desk.stream(request, context, write)

    async def ExecuteTool(self, request: bridge.ExecuteToolRequest, context: Context) -> bridge.ExecuteToolResponse:
        started_s = time.monotonic()
        try:
            execution = await self._desk.start(request, context, streaming=False)
        except Exception as refusal:
            return _unary_failure(describe(refusal, tool=request.tool_name, session_id=request.session_id), started_s)
        try:
            # Nothing is put there by a unary tool: this waits for its end, or for a cancellation by the drain.
            await execution.buffer.take()
        finally:
            self._desk.executor.cancel(execution)
        if execution.failure is not None:
            return _unary_failure(execution.failure, started_s)
        result = any_pb2.Any(type_url=_TEXT_URL, value=execution.result)
        return bridge.ExecuteToolResponse(success=True, result=result, execution_time_ms=_since_ms(started_s))

    async def InitializeSession(self, request: bridge.InitializeSessionRequest, context: Context) -> bridge.InitializeSessionResponse:
        return await self._desk.sessions.initialize(request, context)

    async def CleanupSession(self, request: bridge.CleanupSessionRequest, context: Context) -> bridge.CleanupSessionResponse:
        return await self._desk.sessions.clean_up(request, context)

    async def GetSession(self, request: bridge.GetSessionRequest, context: Context) -> bridge.GetSessionResponse:
        return await self._desk.sessions.get(request, context)

    async def Heartbeat(self, request: bridge.HeartbeatRequest, context: Context) -> bridge.HeartbeatResponse:
        return await self._desk.sessions.heartbeat(request, context)

    async def StreamTelemetry(self, request_iterator: AsyncIterator[bridge.TelemetryControl], context: Context) -> None:
        """Take controls and have nothing to report, until the client ends."""
        await context.send_initial_metadata(())
        async for _ in request_iterator:
            pass


def now() -> timestamp_pb2.Timestamp:
    """Return the wall clock's time as protobuf says it."""
    stamp = timestamp_pb2.Timestamp()
    stamp.GetCurrentTime()
    return stamp


def _check_kind(tool: ToolSpec, streaming: bool) -> None:
    if streaming and not tool.supports_streaming:
        hint = f" {tool.contradiction}." if tool.contradiction else ""
        raise WrongCall(
            f"Streaming execution is not enabled for tool {tool.name}. Enable streaming support on the adapter "
            f"(supports_streaming: true) or use ExecuteTool instead.{hint}"
        )
    if not streaming and tool.supports_streaming:
        raise WrongCall(f"Tool {tool.name} streams and has no single result. Use ExecuteStreamingTool instead.")


def _fail(context: Context, failure: Failure) -> None:
    context.set_code(_STATUSES[failure.code])
    context.set_details(failure.detail)


def _unary_failure(failure: Failure, started_s: float) -> bridge.ExecuteToolResponse:
    """Return a failed result as Snakepit's workers send it, with the status code beside it."""
    return bridge.ExecuteToolResponse(
        success=False,
        error_message=failure.detail,
        metadata={"error_code": failure.code.name},
        execution_time_ms=_since_ms(started_s),
    )


def _since_ms(started_s: float) -> int:
    return round((time.monotonic() - started_s) * 1000)
