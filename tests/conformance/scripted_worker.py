"""A worker of the BridgeService that does what a tool's name says: what our own workers never do, and Snakepit's now and then do.

A grpc.server in the test's process, on the generated service code. `requests` are what it was asked, newest last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as PackedAny

from gateway.codec.values import JSON_TYPE_URL
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc

PYTHON_ERROR = '{"type": "ValueError", "message": "boom", "stacktrace": [], "traceback": "Traceback", "context": {"tool_name": "x"}}'


def chunk(chunk_id: str, data: bytes = b"", *, final: bool = False, **metadata: str) -> pb.ToolChunk:
    return pb.ToolChunk(chunk_id=chunk_id, data=data, is_final=final, metadata=metadata)


STREAMS: dict[str, list[pb.ToolChunk]] = {
    "plain": [chunk("plain-1", b'{"n": 1}'), chunk("plain-2", b'{"n": 2}'), chunk("plain-3", final=True)],
    "several_finals": [
        chunk("several_finals-1", b"1", final=True, mine="1", worker_id="my own"),
        chunk("several_finals-2", b"2"),
        chunk("several_finals-3", final=True, mine="3"),
        chunk("several_finals-4", b"4", final=True),
        chunk("several_finals-5", final=True),
        chunk("odd", final=True, last="yes"),
    ],
    "after_final": [chunk("after_final-1", final=True), chunk("after_final-2", b"2"), chunk("after_final-3", b"3")],
    "no_final": [chunk("no_final-1", b"1"), chunk("no_final-2", b"2")],
    "nothing": [],
    "odd_ids": [chunk("a", b"1"), chunk("", b"2"), chunk("odd_ids-3", b"3", k="v"), chunk("z", final=True)],
    "raw": [chunk("raw-1", b"text, no JSON"), chunk("raw-2", b"\xff\x00"), chunk("raw-3", b"NaN"), chunk("raw-4", final=True)],
}
STATUSES = {
    "fails": (grpc.StatusCode.INTERNAL, PYTHON_ERROR),
    "denies": (grpc.StatusCode.PERMISSION_DENIED, "not for you"),
    "stops": (grpc.StatusCode.UNAVAILABLE, "Cancelling all calls"),
}
GARBAGE = "garbage"
ENDLESS = "endless_worker"
TOOLS = [*STREAMS, *STATUSES, GARBAGE, ENDLESS]


class ScriptedWorker(pb_grpc.BridgeServiceServicer):
    """The worker. `cancelled` is set when a call of ENDLESS was."""

    def __init__(self) -> None:
        self.requests: list[tuple[pb.ExecuteToolRequest, dict[str, Any]]] = []
        self.cancelled = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8))
        pb_grpc.add_BridgeServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        handlers = {
            "ExecuteStreamingTool": grpc.unary_stream_rpc_method_handler(self._stream, pb.ExecuteToolRequest.FromString, _serialize),
        }
        self._server.add_registered_method_handlers("snakepit.bridge.BridgeService", handlers)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.stop(0).wait()

    def Ping(self, request: pb.PingRequest, context: grpc.ServicerContext) -> pb.PingResponse:
        return pb.PingResponse(message=f"Pong from Python: {request.message}")

    def ExecuteTool(self, request: pb.ExecuteToolRequest, context: grpc.ServicerContext) -> pb.ExecuteToolResponse:
        self._note(request, context)
        if request.tool_name in STATUSES:
            return pb.ExecuteToolResponse(success=False, error_message=PYTHON_ERROR)
        return pb.ExecuteToolResponse(success=True, result=PackedAny(type_url=JSON_TYPE_URL, value=b'{"n":1}'))

    def _stream(self, request: pb.ExecuteToolRequest, context: grpc.ServicerContext) -> Iterator[pb.ToolChunk | bytes]:
        self._note(request, context)
        yield from STREAMS.get(request.tool_name, ())
        if request.tool_name in STATUSES:
            yield chunk(f"{request.tool_name}-1", b"1")
            context.abort(*STATUSES[request.tool_name])
        if request.tool_name == GARBAGE:
            yield b"\xff\xff\xff"
        if request.tool_name == ENDLESS:
            context.add_callback(self.cancelled.set)
            yield chunk(f"{ENDLESS}-1", b"1")
            self.cancelled.wait(20)

    def _note(self, request: pb.ExecuteToolRequest, context: grpc.ServicerContext) -> None:
        self.requests.append((request, dict(context.invocation_metadata())))


def _serialize(message: pb.ToolChunk | bytes) -> bytes:
    """Serialise a message; bytes are sent as they are, whatever they say."""
    return message if isinstance(message, bytes) else message.SerializeToString()
