"""BridgeService as a Snakepit worker's host: what the worker calls back, answered at once.

A worker makes these calls on its event loop without a deadline: nothing here waits for a worker, or a slow answer would stop all its
streams. What names a session that we did not give out gets Snakepit's own failure. Executing tools and telemetry are the worker's
side of the service and UNIMPLEMENTED here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.host.sessions import HostSessions
from gateway.hosttools.answering import no_such_tool
from gateway.hosttools.toolbox import Toolbox
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc

_log = structlog.get_logger("gateway.host")

Context = grpc.aio.ServicerContext[Any, Any]


class HostService(pb_grpc.BridgeServiceServicer):
    """The service. `tools` None: the host has no tools of its own."""

    def __init__(self, sessions: HostSessions, tools: Toolbox | None = None) -> None:
        self._sessions = sessions
        self.tools = tools

    async def Ping(self, request: pb.PingRequest, context: Context) -> pb.PingResponse:
        """Answer at once: a worker that starts waits for this."""
        return pb.PingResponse(message=f"pong: {request.message}", server_time=_now())

    async def InitializeSession(self, request: pb.InitializeSessionRequest, context: Context) -> pb.InitializeSessionResponse:
        """Say that a session of ours is there; others are not begun."""
        if self._sessions.find(request.session_id) is None:
            await context.abort(grpc.StatusCode.INTERNAL, "invalid_id")
        return pb.InitializeSessionResponse(success=True)

    async def CleanupSession(self, request: pb.CleanupSessionRequest, context: Context) -> pb.CleanupSessionResponse:
        """Say so: a worker passes on what was asked of it. A session ends with its worker, not before."""
        return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        """Describe a session."""
        session = self._sessions.find(request.session_id)
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Session not found: {request.session_id}")
        created = Timestamp(seconds=int(session.created_at))
        return pb.GetSessionResponse(session_id=session.id, created_at=created, tool_count=len(session.tools or ()))

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Context) -> pb.HeartbeatResponse:
        """Answer: a worker that misses three of these ends itself."""
        return pb.HeartbeatResponse(server_time=_now(), session_valid=self._sessions.find(request.session_id) is not None)

    async def RegisterTools(self, request: pb.RegisterToolsRequest, context: Context) -> pb.RegisterToolsResponse:
        """Take a worker's tools: all or none."""
        session = self._sessions.find(request.session_id)
        if session is None:
            return pb.RegisterToolsResponse(success=False, error_message="not_found")
        answer = session.register(request)
        if not answer.success:
            _log.warning("a worker's tools were refused", worker=session.worker_id, reason=answer.error_message)
        return answer

    async def GetExposedElixirTools(self, request: pb.GetExposedElixirToolsRequest, context: Context) -> pb.GetExposedElixirToolsResponse:
        """List the host's own tools."""
        if self.tools is None or self._sessions.find(request.session_id) is None:
            return pb.GetExposedElixirToolsResponse()
        return pb.GetExposedElixirToolsResponse(tools=self.tools.specs())

    async def ExecuteElixirTool(self, request: pb.ExecuteElixirToolRequest, context: Context) -> pb.ExecuteElixirToolResponse:
        """Execute one of the host's own tools."""
        if self._sessions.find(request.session_id) is None:
            return pb.ExecuteElixirToolResponse(success=False, error_message=f"Session not found: {request.session_id}")
        if self.tools is None:
            return no_such_tool(request.tool_name)
        return await self.tools.execute(request.session_id, request.tool_name, request.parameters)

    async def ExecuteTool(self, request: pb.ExecuteToolRequest, context: Context) -> pb.ExecuteToolResponse:
        """Refuse: tools are executed by workers, and callers come by the front doors."""
        await _unimplemented(context, "ExecuteTool")

    async def ExecuteStreamingTool(self, request: pb.ExecuteToolRequest, context: Context) -> AsyncIterator[pb.ToolChunk]:
        """Refuse, as ExecuteTool."""
        await _unimplemented(context, "ExecuteStreamingTool")
        yield

    async def StreamTelemetry(
        self, request_iterator: AsyncIterator[pb.TelemetryControl], context: Context
    ) -> AsyncIterator[pb.TelemetryEvent]:
        """Refuse: a worker serves its telemetry, it does not send it here."""
        await _unimplemented(context, "StreamTelemetry")
        yield


async def _unimplemented(context: Context, method: str) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served to workers")
    raise AssertionError("abort raises")


def _now() -> Timestamp:
    return Timestamp(seconds=int(time.time()))
