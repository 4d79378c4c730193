"""One WebSocket of the gateway's subprotocol that subscribes to one run and only counts its `next` frames.

RFC 6455, client side, as little as that needs: short masked text frames out, whole text frames in.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks import stamp
from benchmarks.load.reader import StreamFailed, StreamReader

SUBPROTOCOL = "snakepit.gateway.v1"
# The sample key of RFC 6455: the answer is not checked.
HANDSHAKE = (
    "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
).encode()
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
NEXT = b'{"type":"next"'


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame masked with zeros, which leaves the payload as it is."""
    size = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((0x80 | opcode,)) + size + b"\0\0\0\0" + payload


class FrameReader(StreamReader):
    """Connects, subscribes with this payload, counts."""

    def __init__(self, payload: dict[str, Any], *, stamps: stamp.Reader | None = None) -> None:
        super().__init__(stamps)
        self._subscribe = json.dumps({"type": "subscribe", "id": "a", "payload": payload}).encode()
        self._buffer = b""
        self._is_open = False
        self._events = 0

    @property
    def events(self) -> int:
        return self._events

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._is_open:
            head, blank, rest = buffer.partition(b"\r\n\r\n")
            if not blank:
                self._buffer = buffer
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.end(StreamFailed(f"no WebSocket: {head[:100]!r}"))
                return
            self._is_open, buffer = True, rest
            self.transport.write(client_frame(TEXT, b'{"type":"connection_init"}') + client_frame(TEXT, self._subscribe))
        self.note_latencies(data)
        self._buffer = buffer[self._count(buffer) :]

    def _count(self, buffer: bytes) -> int:
        """Count the whole frames in `buffer`; return where the first incomplete one begins."""
        at, end, events = 0, len(buffer), 0
        while end - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if start + size > end:
                break
            if buffer.startswith(NEXT, start):
                events += 1
            else:
                self._control(buffer[at] & 0x0F, buffer[start : start + size])
            at = start + size
        if events:
            self._events += events
            self.note_first()
        return at

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.transport.write(client_frame(PONG, payload))
        elif opcode == CLOSE:
            self.end(StreamFailed(f"closed: {payload!r}"))
        elif payload.startswith(b'{"type":"complete"'):
            self.tail = payload
            self.end(None)
        elif payload.startswith(b'{"type":"error"'):
            self.end(StreamFailed(payload[:500].decode()))
