"""A WebSocket whose client can't make everybody else wait: what it sends is parsed in small steps of the event loop.

Base of server.py's protocol. One read of a socket holds up to 256 KiB: 12,000 small frames, over half a second of parsing
in one step, and a client that floods makes that the rule. Here everybody else goes on after STEP_BYTES. What a client sends
ahead of the answer to its handshake waits for that answer, which a pong would otherwise precede. Text that isn't UTF-8 is
the client's mistake as well, not a traceback in the log. Standard: RFC 6455 (§4.1, §8.1).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# So much is parsed in one step of the event loop: at worst 700 frames, some 15 ms.
STEP_BYTES = 4096


class PacedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol, in steps of STEP_BYTES. While a rest waits, the socket isn't read: it holds at most one read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rest = bytearray()
        self._step: asyncio.Handle | None = None
        # Whether anything has come since this was last set back.
        self.heard = False

    def data_received(self, data: bytes) -> None:
        self.heard = True
        # The first to come is the request's head, whose size guard.py has bounded.
        if not self.handshake_initiated or (self.handshake_complete and not self._rest and len(data) <= STEP_BYTES):
            super().data_received(data)
            return
        self._rest += data
        self.transport.pause_reading()
        self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest.clear()
        super().connection_lost(exc)

    async def receive(self) -> Any:
        """Do what the base does; there may be a rest to parse ahead of what the socket holds."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._read_on()
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] in ("websocket.accept", "websocket.close"):
            # What is left came ahead of the answer, or may hold the answer to the close.
            self._read_on()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            data = b"".join(self.frames)
            try:
                data.decode()
            except UnicodeDecodeError:
                self.frames = []
                self._rest.clear()
                self.conn.fail(1007, "text is UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def _read_on(self) -> None:
        """Parse the rest in a later step, or have the socket read when there is none."""
        if self.transport.is_closing():
            self._rest.clear()
        elif not self._rest:
            self.transport.resume_reading()
        elif self._step is None and self.handshake_complete:
            self._step = self.loop.call_soon(self._read_step)

    def _read_step(self) -> None:
        self._step = None
        piece = bytes(self._rest[:STEP_BYTES])
        del self._rest[:STEP_BYTES]
        if piece:
            super().data_received(piece)
        if not self.read_paused:
            self._read_on()
