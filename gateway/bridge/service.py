"""BridgeService as Snakepit's BridgeServer behaves (contract §5), over the hub.

ExecuteStreamingTool checks in that server's order and with its words: the session, the tool, whether it streams,
the parameters. Chunks are forwarded in order and unchanged; the final one is decorated, and made up where the
worker sent none. Departures, on purpose: a worker's own status code is passed on (there it becomes INTERNAL),
tools of the catalogue need no registration, and runs queue like everyone else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any as JsonValue
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.auth.scopes import tool_refused
from gateway.bridge import registration
from gateway.bridge.authentication import current_caller
from gateway.bridge.calls import CallReader
from gateway.bridge.reader import ChunkReader
from gateway.bridge.status import STATUS
from gateway.caller import Caller
from gateway.codec import ratelimit, values
from gateway.errors import GatewayError, ToolFailed
from gateway.events import Chunks, Ended
from gateway.hosttools.answering import failure, no_such_tool
from gateway.hosttools.toolbox import Toolbox
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.runs.hub import Hub, check_kind, not_streaming
from gateway.runs.policy import RunPolicy
from gateway.runs.source import RunSource
from gateway.sessions import Session, Sessions, session_key

# Host tools are a pool of this name to scopes: `pools:host`.
HOST_POOL = "host"

Context = grpc.aio.ServicerContext[JsonValue, JsonValue]


class BridgeService(pb_grpc.BridgeServiceServicer):
    """The service. `timeout_s` is the budget of a call that names none; `timeout_limit_s` the most it may name.

    `host_tools` None: the gateway has no tools of its own.
    """

    def __init__(
        self,
        hub: Hub,
        sessions: Sessions,
        *,
        timeout_s: float = 900.0,
        timeout_limit_s: float = 3600.0,
        host_tools: Toolbox | None = None,
    ) -> None:
        self._hub = hub
        self._sessions = sessions
        self._host_tools = host_tools
        self._calls = CallReader(hub, timeout_s, timeout_limit_s)

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        """Answer at once."""
        return pb.PingResponse(message=f"pong: {request.message}", server_time=_now())

    async def InitializeSession(self, request: pb.InitializeSessionRequest, context: Context) -> pb.InitializeSessionResponse:
        """Begin a session, or go on with it; idempotent."""
        try:
            session = self._sessions.use(request.session_id, current_caller(), dict(request.metadata))
        except GatewayError:
            await context.abort(grpc.StatusCode.INTERNAL, "invalid_id")
        if (others := self._hub.others) is not None:
            try:
                await others.touch_session(session.key, session.metadata)
            except GatewayError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, error.detail)
        return pb.InitializeSessionResponse(success=True)

    async def CleanupSession(self, request: pb.CleanupSessionRequest, context: Context) -> pb.CleanupSessionResponse:
        """End a session; always a success."""
        caller = current_caller()
        self._sessions.end(request.session_id, caller)
        if (others := self._hub.others) is not None:
            with contextlib.suppress(GatewayError):  # it expires there, too
                await others.end_session(session_key(request.session_id, caller.id))
        return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Describe a session."""
        session = await self._session(request.session_id, context)
        created = Timestamp(seconds=int(session.created_at))
        return pb.GetSessionResponse(
            session_id=session.id, metadata=dict(session.metadata), created_at=created, tool_count=len(session.tools)
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        """Say whether the session is known, and keep it alive."""
        session = await self._known(request.session_id, touch=True)
        return pb.HeartbeatResponse(server_time=_now(), session_valid=session is not None)

    async def RegisterTools(self, request: pb.RegisterToolsRequest, context: Context) -> pb.RegisterToolsResponse:
        """Register tools for a session: all or none."""
        session = await self._known(request.session_id, touch=True)
        if session is None:
            return pb.RegisterToolsResponse(success=False, error_message="not_found")
        return registration.register(session, request)

    async def GetExposedElixirTools(self, request: pb.GetExposedElixirToolsRequest, context: Context) -> pb.GetExposedElixirToolsResponse:
        """List the host's own tools: of ours, those that the caller may run. A session is not needed for that."""
        if self._host_tools is None:
            return pb.GetExposedElixirToolsResponse()
        grants = current_caller().grants
        specs = [spec for spec in self._host_tools.specs() if grants.may_run(spec.name, HOST_POOL)]
        return pb.GetExposedElixirToolsResponse(tools=specs)

    async def ExecuteElixirTool(self, request: pb.ExecuteElixirToolRequest, context: Context) -> pb.ExecuteElixirToolResponse:
        """Execute one of the host's own tools. Whatever fails is OK with `success` false, as in Snakepit."""
        if await self._known(request.session_id, touch=True) is None:
            return failure("not_found")
        grants = current_caller().grants
        if self._host_tools is None:
            return no_such_tool(request.tool_name)
        if not grants.may_run(request.tool_name, HOST_POOL):
            return failure(tool_refused(grants, request.tool_name, HOST_POOL).detail)
        return await self._host_tools.execute(request.session_id, request.tool_name, request.parameters)

    async def ExecuteTool(self, request: pb.ExecuteToolRequest, context: Context) -> pb.ExecuteToolResponse:
        """Execute a unary tool. As in Snakepit a failure is OK with `success` false; the code is in the metadata."""
        began = time.monotonic()
        try:
            session = await self._known(request.session_id, touch=True)
            if session is None:
                raise GatewayError("session-not-found", "not_found")
            call = self._calls.read(request, context, session, streaming=False)
            end, chunks = await self._collect(await self._hub.start(call, RunPolicy()), call.caller)
        except GatewayError as error:
            return _failed(error, _message(error, request), began)
        if end.error is not None:
            return _failed(end.error, f"Remote tool execution failed: {_message(end.error, request)}", began)
        result = Any(type_url=values.JSON_TYPE_URL, value=chunks[0] if chunks else b"null")
        metadata = {**end.metadata, "execution_time": end.metadata.get("execution_time_ms", "0")}
        return pb.ExecuteToolResponse(success=True, result=result, metadata=metadata, execution_time_ms=_elapsed_ms(began))

    async def ExecuteStreamingTool(self, request: pb.ExecuteToolRequest, context: Context) -> AsyncIterator[pb.ToolChunk]:
        """Execute a streaming tool and forward its chunks. The client's leaving cancels the run."""
        session = await self._session(request.session_id, context, touch=True)
        try:
            self._check_streams(session, request.tool_name)
            call = self._calls.read(request, context, session, streaming=True)
            run = await self._hub.start(call, RunPolicy())
        except GatewayError as error:
            await self._abort(error, request, context)
        reader = ChunkReader(run, call.caller)
        try:
            while (batch := await reader.read()) is not None:
                for chunk in batch:
                    yield chunk
        finally:
            reader.close()
        if reader.error is not None:
            await self._abort(reader.error, request, context)

    async def StreamTelemetry(
        self, request_iterator: AsyncIterator[pb.TelemetryControl], context: Context
    ) -> AsyncIterator[pb.TelemetryEvent]:
        """Take controls and emit nothing: the gateway's own metrics are not Snakepit telemetry events.

        It ends when its caller's credential expires.
        """
        expires_at = current_caller().expires_at
        try:
            async with asyncio.timeout(None if expires_at is None else expires_at - time.time()):
                async for _ in request_iterator:
                    pass
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "The credential has expired; call again with a new one")
        # Never reached by a client that stays: an async generator has to have a yield.
        return
        yield

    async def _session(self, session_id: str, context: Context, *, touch: bool = False) -> Session:
        session = await self._known(session_id, touch=touch)
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Session not found: {session_id}")
        return session

    async def _known(self, session_id: str, *, touch: bool = False) -> Session | None:
        """Return a session that was begun here, or on another gateway of the same log; its registered tools are this gateway's alone."""
        caller = current_caller()
        session = self._sessions.get(session_id, caller, touch=touch)
        if session is None and (others := self._hub.others) is not None:
            with contextlib.suppress(GatewayError):
                found = await others.find_session(session_key(session_id, caller.id))
                session = None if found is None else self._sessions.use(session_id, caller, found[1])
        return session

    def _check_streams(self, session: Session, tool: str) -> None:
        """Check that there is such a tool and that it streams, by the catalogue and by what the session registered."""
        registered = session.tools.get(tool)
        if registered is not None and not registered.supports_streaming:
            raise not_streaming(tool)
        check_kind(self._hub.catalog.find(tool), streaming=True)

    @staticmethod
    async def _collect(run: RunSource, caller: Caller) -> tuple[Ended, list[bytes]]:
        """Return a run's end and all its payloads; a cancelled task leaves the run."""
        signal = asyncio.Event()
        reader = run.subscribe(signal.set, caller)
        reader.format = "grpc"
        payloads: list[bytes] = []
        try:
            while True:
                event = reader.take()
                if isinstance(event, Ended):
                    return event, payloads
                if isinstance(event, Chunks):
                    payloads += event.payloads
                elif event is None:
                    await signal.wait()
                    signal.clear()
        finally:
            reader.close()

    @staticmethod
    async def _abort(error: GatewayError, request: pb.ExecuteToolRequest, context: Context) -> NoReturn:
        """End the call with an error's status."""
        await context.abort(STATUS[error.code], _message(error, request), tuple(_limit_metadata(error).items()))
        raise AssertionError("abort raises")


def _message(error: GatewayError, request: pb.ExecuteToolRequest) -> str:
    """Return an error in Snakepit's words where it has some; a tool's own as its worker sent it; else the detail and the wrong fields."""
    if isinstance(error, ToolFailed):
        return error.raw
    if error.problem == "tool-not-found":
        return f"Tool {request.tool_name} not found for session {request.session_id}"
    fields = "; ".join(f"{entry.field} {entry.detail}" for entry in error.errors)
    return f"{error.detail} ({fields})" if fields else error.detail


def _limit_metadata(error: GatewayError) -> dict[str, str]:
    """Return what an error says of the caller's limits, as the call's metadata: the header fields of an HTTP answer."""
    if not error.quotas:
        return {}
    metadata = {name.lower(): value for name, value in ratelimit.fields(error.quotas).items()}
    if error.retry_after_s is not None:
        metadata["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return metadata


def _failed(error: GatewayError, message: str, began: float) -> pb.ExecuteToolResponse:
    """Return a unary call's failure."""
    metadata = {"tool_type": "remote", "error_code": error.code.name, **_limit_metadata(error)}
    return pb.ExecuteToolResponse(success=False, error_message=message, metadata=metadata, execution_time_ms=_elapsed_ms(began))


def _elapsed_ms(began: float) -> int:
    return int((time.monotonic() - began) * 1000)


def _now() -> Timestamp:
    return Timestamp(seconds=int(time.time()))
