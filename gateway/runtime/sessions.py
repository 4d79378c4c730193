"""The session calls of BridgeService on a worker: the seam, and what answers them where there is no host.

With a Snakepit host they are the host's to answer (host.py). Without one the worker keeps a small table, so
that clients written for Snakepit can go through their motions.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf import timestamp_pb2

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.runtime.session import HostTools

Context = grpc.aio.ServicerContext[Any, Any]

SESSION_LIMIT = 10_000


class Sessions(Protocol):
    """Answers the session calls. A method that fails sets the call's status and returns an empty answer."""

    @property
    def host_tools(self) -> HostTools | None:
        """The host's own tools; None without a host."""

    async def prepare(self, session_id: str) -> None:
        """Make a session known before an execution in it. Never raises; takes seconds at most."""

    async def initialize(self, request: bridge.InitializeSessionRequest, context: Context) -> bridge.InitializeSessionResponse: ...
    async def clean_up(self, request: bridge.CleanupSessionRequest, context: Context) -> bridge.CleanupSessionResponse: ...
    async def get(self, request: bridge.GetSessionRequest, context: Context) -> bridge.GetSessionResponse: ...
    async def heartbeat(self, request: bridge.HeartbeatRequest, context: Context) -> bridge.HeartbeatResponse: ...


@dataclass(slots=True)
class _Session:
    metadata: dict[str, str]
    created_at: timestamp_pb2.Timestamp = field(default_factory=lambda: _now())


class LocalSessions:
    """Sessions in memory: at most SESSION_LIMIT, beyond which the one that was used longest ago is forgotten."""

    def __init__(self, tool_count: int, host_tools: HostTools | None = None) -> None:
        self._tool_count = tool_count
        self._host_tools = host_tools
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    @property
    def host_tools(self) -> HostTools | None:
        return self._host_tools

    async def prepare(self, session_id: str) -> None:
        if session_id:
            self._open(session_id)

    async def initialize(self, request: bridge.InitializeSessionRequest, context: Context) -> bridge.InitializeSessionResponse:
        if not request.session_id:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("a session needs an id")
            return bridge.InitializeSessionResponse()
        self._open(request.session_id).metadata.update(request.metadata)
        return bridge.InitializeSessionResponse(success=True)

    async def clean_up(self, request: bridge.CleanupSessionRequest, context: Context) -> bridge.CleanupSessionResponse:
        known = self._sessions.pop(request.session_id, None) is not None
        return bridge.CleanupSessionResponse(success=True, resources_cleaned=int(known))

    async def get(self, request: bridge.GetSessionRequest, context: Context) -> bridge.GetSessionResponse:
        session = self._sessions.get(request.session_id)
        if session is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details(f"Session not found: {request.session_id}")
            return bridge.GetSessionResponse()
        return bridge.GetSessionResponse(
            session_id=request.session_id, metadata=session.metadata, created_at=session.created_at, tool_count=self._tool_count
        )

    async def heartbeat(self, request: bridge.HeartbeatRequest, context: Context) -> bridge.HeartbeatResponse:
        return bridge.HeartbeatResponse(server_time=_now(), session_valid=request.session_id in self._sessions)

    def _open(self, session_id: str) -> _Session:
        session = self._sessions.setdefault(session_id, _Session({}))
        self._sessions.move_to_end(session_id)
        if len(self._sessions) > SESSION_LIMIT:
            self._sessions.popitem(last=False)
        return session


def _now() -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.GetCurrentTime()
    return stamp
