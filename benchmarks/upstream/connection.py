"""HTTP/2 of the upstream, server side: the few frames that gRPC needs, as an asyncio protocol.

Owns both flow-control windows and never sends past them, nor while the socket's buffer is full. Streams that can
send take turns. The `h2` package's state machine is not used: it costs more for each call than the targets
measured here, and would be the bottleneck of short streams. Sources: RFC 9113, RFC 7541, gRPC over HTTP/2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hpack import Decoder

from benchmarks.plan import Plan
from benchmarks.upstream.answers import ANSWERS
from benchmarks.upstream.execution import Execution
from benchmarks.upstream.reports import Reports
from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
INITIAL_WINDOW_SIZE = 4

# Requests are small: the connection's window is credited now and then, a stream's never.
CREDIT_STEP_BYTES = 16384

STREAM = b"/snakepit.bridge.BridgeService/ExecuteStreamingTool"


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field as a literal without indexing: no table to keep, the same bytes for every stream."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


# 0x20: a dynamic table of size 0, which a peer that allows no other has to be told (RFC 7541 §4.2) and which is what
# these literals need; 0x88: `:status: 200` of the static table.
RESPONSE = b"\x20\x88" + literal(b"content-type", b"application/grpc")
OK_TRAILERS = literal(b"grpc-status", b"0")
UNIMPLEMENTED = RESPONSE + literal(b"grpc-status", b"12")


class Connection(asyncio.Protocol):
    """One connection from a gateway, with all streams on it."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._preface_seen = False
        self._decoder = Decoder()
        self._window = 65535
        # Of requests, what the peer's window hasn't got back.
        self._uncredited = 0
        self._initial_window = 65535
        # Requests whose end hasn't come: path, body.
        self._requests: dict[int, tuple[bytes, bytearray]] = {}
        self._headers: tuple[int, int, bytes] | None = None
        self._executions: dict[int, Execution] = {}
        # Streams that can send; each at most once.
        self._queue: deque[Execution] = deque()
        self._writable = True
        self._pump_scheduled = False
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            DATA: self._on_data,
            HEADERS: self._on_headers,
            CONTINUATION: self._on_continuation,
            SETTINGS: self._on_settings,
            PING: self._on_ping,
            WINDOW_UPDATE: self._on_window_update,
            RST_STREAM: self._on_reset,
        }

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.write(frame(SETTINGS, 0, 0, b""))

    def connection_lost(self, exc: Exception | None) -> None:
        for execution in list(self._executions.values()):
            self._cancelled(execution)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._preface_seen:
            if len(buffer) < len(PREFACE):
                self._buffer = buffer
                return
            self._preface_seen = True
            buffer = buffer[len(PREFACE) :]
        at, end = 0, len(buffer)
        while end - at >= 9:
            size = int.from_bytes(buffer[at : at + 3], "big")
            if end - at < 9 + size:
                break
            handler = self._handlers.get(buffer[at + 3])
            if handler is not None:
                stream_id = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
                handler(buffer[at + 4], stream_id, buffer[at + 9 : at + 9 + size])
            at += 9 + size
        self._buffer = buffer[at:]
        self._pump()

    # frames

    def _on_settings(self, flags: int, _stream_id: int, payload: bytes) -> None:
        if flags & ACK:
            return
        for at in range(0, len(payload), 6):
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if int.from_bytes(payload[at : at + 2], "big") == INITIAL_WINDOW_SIZE:
                change, self._initial_window = value - self._initial_window, value
                for execution in self._executions.values():
                    execution.window += change
                    self._enqueue(execution)
        self._transport.write(frame(SETTINGS, ACK, 0, b""))

    def _on_ping(self, flags: int, _stream_id: int, payload: bytes) -> None:
        if not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        credit = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if stream_id == 0:
            self._window += credit
            return
        execution = self._executions.get(stream_id)
        if execution is not None:
            execution.window += credit
            self._enqueue(execution)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if flags & PRIORITY:
            payload = payload[5:]
        self._headers = (stream_id, flags, payload)
        if flags & END_HEADERS:
            self._headers_complete()

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._headers is not None and self._headers[0] == stream_id:
            self._headers = (stream_id, self._headers[1], self._headers[2] + payload)
            if flags & END_HEADERS:
                self._headers_complete()

    def _headers_complete(self) -> None:
        assert self._headers is not None
        (stream_id, flags, block), self._headers = self._headers, None
        path = next((value for name, value in self._decoder.decode(block, raw=True) if name == b":path"), b"")
        self._requests[stream_id] = (path, bytearray())
        if flags & END_STREAM:
            self._request_complete(stream_id)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._uncredited += len(payload)
        if self._uncredited >= CREDIT_STEP_BYTES:
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, self._uncredited.to_bytes(4, "big")))
            self._uncredited = 0
        request = self._requests.get(stream_id)
        if request is None:
            return
        request[1].extend(payload[1 : len(payload) - payload[0]] if flags & PADDED else payload)
        if flags & END_STREAM:
            self._request_complete(stream_id)

    def _on_reset(self, _flags: int, stream_id: int, _payload: bytes) -> None:
        self._requests.pop(stream_id, None)
        execution = self._executions.get(stream_id)
        if execution is not None:
            self._cancelled(execution)

    # calls

    def _request_complete(self, stream_id: int) -> None:
        path, body = self._requests.pop(stream_id)
        if path == STREAM:
            self._execute(stream_id, Plan.of_request(ExecuteToolRequest.FromString(bytes(body[5:]))))
        elif path in ANSWERS:
            answer = ANSWERS[path]
            self._transport.write(
                frame(HEADERS, END_HEADERS, stream_id, RESPONSE)
                + frame(DATA, 0, stream_id, answer)
                + frame(HEADERS, END_HEADERS | END_STREAM, stream_id, OK_TRAILERS)
            )
            self._window -= len(answer)
        else:
            self._transport.write(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, UNIMPLEMENTED))

    def _execute(self, stream_id: int, plan: Plan) -> None:
        execution = Execution(stream_id, self._initial_window, plan)
        self._executions[stream_id] = execution
        self._reports.opened(execution)
        self._transport.write(frame(HEADERS, END_HEADERS, stream_id, RESPONSE))
        if execution.is_paced:
            # Spread evenly, and the same in every run: 7919 is a prime.
            phase = (stream_id * 7919 % 1000) / 1000
            interval_s = plan.interval_us / 1e6
            self._loop.call_later(phase * interval_s, self._tick, execution, self._loop.time() + phase * interval_s, interval_s)
        self._enqueue(execution)

    def _tick(self, execution: Execution, due: float, interval_s: float) -> None:
        if execution.stream_id not in self._executions:
            return
        if execution.tick():
            due += interval_s
            self._loop.call_at(due, self._tick, execution, due, interval_s)
        self._enqueue(execution)
        self._pump()

    def _cancelled(self, execution: Execution) -> None:
        del self._executions[execution.stream_id]
        self._reports.cancelled(execution)

    # sending

    def _enqueue(self, execution: Execution) -> None:
        if not execution.is_queued and execution.window > 0 and execution.wants:
            execution.is_queued = True
            self._queue.append(execution)

    def _pump(self) -> None:
        """Give every stream that can send one turn; come back after the loop has read what arrived meanwhile."""
        turns = len(self._queue)
        while turns and self._window > 0 and self._writable:
            turns -= 1
            execution = self._queue.popleft()
            execution.is_queued = False
            if execution.stream_id in self._executions:
                self._send(execution)
        if self._queue and self._window > 0 and self._writable and not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._pump_scheduled = False
        self._pump()

    def _send(self, execution: Execution) -> None:
        if not execution.wants:
            return
        frames = self._take(execution)
        if execution.wants_final and self._window > 0 and execution.window > 0:
            # The end goes out with the last chunks, as one write.
            frames += self._take(execution)
        if execution.finished:
            frames += frame(HEADERS, END_HEADERS | END_STREAM, execution.stream_id, OK_TRAILERS)
            del self._executions[execution.stream_id]
            self._reports.finished(execution)
        self._transport.write(frames)
        self._enqueue(execution)

    def _take(self, execution: Execution) -> bytes:
        frames, size = execution.take(min(self._window, execution.window))
        self._window -= size
        execution.window -= size
        execution.sent_bytes += size
        return frames
