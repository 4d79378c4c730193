"""A BridgeServer as Snakepit's is, for a gateway in front of it: its sessions, its registry, its words, its statuses (contract §5, §5.1).

A grpc.server in the test's process, on the generated service code. Behind it stands no worker: a tool's name says what its worker does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
import orjson
from google.protobuf.any_pb2 import Any as PackedAny

from gateway.codec.values import JSON_TYPE_URL
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc

WORKER = "default_worker_1_1"
PAYLOAD = '{"type": "ValueError", "message": "boom", "stacktrace": [], "traceback": "Traceback: boom", "context": {"tool_name": "fails"}}'
NO_STREAMING = (
    "Streaming execution is not enabled for tool {}. "
    "Enable streaming support on the adapter (supports_streaming: true) or use ExecuteTool instead."
)
TOOLS = ("count", "fails", "fails_oddly", "endless", "no_final", "unreachable", "crashes", "invalid", "unary_only", "echo")


class BridgeServer(pb_grpc.BridgeServiceServicer):
    """The server. `calls` are the names of all methods that were called, with the session; `requests` the executions."""

    def __init__(self, port: int = 0) -> None:
        self.sessions: set[str] = set()
        # Tools stay when their session has ended, as there.
        self.tools: dict[tuple[str, str], str] = {}
        self.calls: list[tuple[str, str]] = []
        self.requests: list[pb.ExecuteToolRequest] = []
        self.cancelled = threading.Event()
        self.held = threading.Event()
        self.behave()
        self.port = port
        self.start()

    def behave(self) -> None:
        """Answer as usual, and forget what was called so far; its sessions stay."""
        self.quota = 10_000
        self.forgets_at_once = False
        self.held.set()
        self.calls.clear()
        self.requests.clear()
        self.cancelled.clear()

    def start(self) -> None:
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(16), options=options)
        pb_grpc.add_BridgeServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self.held.set()
        self._server.stop(0).wait()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Lose all sessions, as after their time to live or a restart."""
        self.sessions.clear()

    def count(self, method: str, session: str | None = None) -> int:
        return sum(called == method and session in (None, of) for called, of in list(self.calls))

    def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        return pb.PingResponse(message=f"pong: {request.message}")

    def InitializeSession(self, request: pb.InitializeSessionRequest, context: Any) -> pb.InitializeSessionResponse:
        self.calls.append(("InitializeSession", request.session_id))
        self.held.wait(20)
        if not request.session_id:
            _abort(context, grpc.StatusCode.INTERNAL, "invalid_id")
        if len(self.sessions) >= self.quota:
            _abort(context, grpc.StatusCode.INTERNAL, "session_quota_exceeded")
        self.sessions.add(request.session_id)
        return pb.InitializeSessionResponse(success=True)

    def CleanupSession(self, request: pb.CleanupSessionRequest, context: Any) -> pb.CleanupSessionResponse:
        self.calls.append(("CleanupSession", request.session_id))
        self.sessions.discard(request.session_id)
        return pb.CleanupSessionResponse(success=True, resources_cleaned=1)

    def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        self.calls.append(("Heartbeat", request.session_id))
        return pb.HeartbeatResponse(session_valid=request.session_id in self.sessions)

    def RegisterTools(self, request: pb.RegisterToolsRequest, context: Any) -> pb.RegisterToolsResponse:
        self.calls.append(("RegisterTools", request.session_id))
        if request.session_id not in self.sessions:
            return pb.RegisterToolsResponse(success=False, error_message="not_found")
        for tool in request.tools:
            if (request.session_id, tool.name) in self.tools:
                return pb.RegisterToolsResponse(success=False, error_message=f'{{:duplicate_tool, "{tool.name}"}}')
        for tool in request.tools:
            self.tools[request.session_id, tool.name] = request.worker_id
        return pb.RegisterToolsResponse(success=True)

    def ExecuteStreamingTool(self, request: pb.ExecuteToolRequest, context: Any) -> Iterator[pb.ToolChunk]:
        self._note(request)
        session, tool = request.session_id, request.tool_name
        if session not in self.sessions:
            _abort(context, grpc.StatusCode.NOT_FOUND, f"Session not found: {session}")
        if (session, tool) not in self.tools:
            _abort(context, grpc.StatusCode.NOT_FOUND, f"Tool {tool} not found for session {session}")
        if tool == "unary_only":
            _abort(context, grpc.StatusCode.UNIMPLEMENTED, NO_STREAMING.format(tool))
        if tool == "invalid":
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, 'Invalid parameter x: "unexpected end of input"')
        if self.tools[session, tool] != WORKER:
            _abort(context, grpc.StatusCode.INTERNAL, f"Worker not found: {self.tools[session, tool]}")
        if tool == "unreachable":
            _abort(context, grpc.StatusCode.INTERNAL, "Failed to connect to worker: :econnrefused")
        if tool == "crashes":
            _abort(context, grpc.StatusCode.UNKNOWN, "Internal Server Error")
        if tool == "endless":
            context.add_callback(self.cancelled.set)
        yield pb.ToolChunk(chunk_id=f"{tool}-1", data=b'{"n": 1}')
        if tool == "fails":
            _abort(context, grpc.StatusCode.INTERNAL, PAYLOAD)
        if tool == "fails_oddly":
            _abort(context, grpc.StatusCode.INTERNAL, "%GRPC.RPCError{status: 13}")
        if tool == "endless":
            self.cancelled.wait(20)
            return
        ours = {"execution_time_ms": "1", "tool_type": "remote"}
        if tool == "no_final":
            ours |= {"synthetic_final": "true", "chunks_sent": "1"}
            yield pb.ToolChunk(chunk_id="sp-final-17", is_final=True, metadata=ours)
            return
        yield pb.ToolChunk(chunk_id=f"{tool}-2", is_final=True, metadata={**ours, "worker_id": WORKER})

    def ExecuteTool(self, request: pb.ExecuteToolRequest, context: Any) -> pb.ExecuteToolResponse:
        self._note(request)
        session, tool = request.session_id, request.tool_name
        if session not in self.sessions:
            return pb.ExecuteToolResponse(success=False, error_message="not_found")
        if (session, tool) not in self.tools:
            return pb.ExecuteToolResponse(success=False, error_message=f"Tool {tool} not found for session {session}")
        if tool == "fails":
            return pb.ExecuteToolResponse(success=False, error_message=f"Remote tool execution failed: {PAYLOAD}")
        if tool == "fails_oddly":
            odd = f"Remote tool execution failed: %GRPC.RPCError{{status: 13, message: {PAYLOAD}}}"
            return pb.ExecuteToolResponse(success=False, error_message=odd)
        arguments = {name: orjson.loads(value.value) for name, value in request.parameters.items()}
        return pb.ExecuteToolResponse(success=True, result=PackedAny(type_url=JSON_TYPE_URL, value=orjson.dumps(arguments)))

    def _note(self, request: pb.ExecuteToolRequest) -> None:
        self.requests.append(request)
        self.calls.append(("Execute", request.session_id))
        if self.forgets_at_once:
            self.forget()


def _abort(context: Any, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError("abort raises")
