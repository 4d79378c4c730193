"""One socket to a worker: asyncio's side of connection.py.

Made by dialer.py, used by lane.py. It has no task of its own: the event loop calls it with what was read, it
has each call deliver its messages, then credits the windows, then writes once. Invariant: every call given to
`start` hears its end, whatever happens to the socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast, final

from gateway.transport.connection import ClientConnection, ConnectionState
from gateway.transport.frames import ErrorCode
from gateway.transport.lanecall import LaneCall

# A gRPC server by default takes more than one ping in five minutes for abuse and hangs up. A dead host is noticed
# sooner, by TCP itself.
KEEPALIVE_S = 320.0
KEEPALIVE_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 1.0
_TCP_OPTIONS = (("TCP_NODELAY", 1), ("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000))


@final
class Link:
    """A connection and its transport: one of asyncio's protocols, though not by inheritance, so that it can be compiled.

    `on_change` is called when a stream has ended here or the link takes no more.
    """

    def __init__(self, connection: ClientConnection[LaneCall], on_change: Callable[[Link], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._on_change = on_change
        self._transport: asyncio.Transport | None = None
        # While a read is dealt with, what its sinks do is written and acted on once, at the end.
        self._in_read = False
        self._flush_is_due = False
        # Calls whose Outgoing has something to send, at the next flush.
        self._fed: list[LaneCall] = []
        self._stream_ended = False
        self._writing_paused = False
        self._heard = False
        self._pinged = False
        self._keepalive: asyncio.TimerHandle | None = None
        # Resolved with "" when the peer's SETTINGS have come, else with why they won't.
        self.greeted: asyncio.Future[str] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # -- for the channel -----------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether `start` may be called."""
        return self._connection.has_room

    @property
    def usable(self) -> bool:
        """Whether it takes new calls, now or when one of its own has ended."""
        return self._connection.state is ConnectionState.OPEN

    @property
    def open_streams(self) -> int:
        """How many calls are on it."""
        return self._connection.open_streams

    @property
    def alpn(self) -> str | None:
        """What the TLS handshake settled on; None without TLS."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return tls.selected_alpn_protocol() if tls is not None else None

    def start(self, call: LaneCall) -> None:
        """Send the call's request, headers and all in one write. There must be room."""
        call.carrier = self
        self._connection.open(call, call.method, call.take_request(), call.remaining_s(), call.metadata)
        self._flush_soon()

    def drop(self, call: LaneCall) -> None:
        """Reset the stream of a call that has ended here."""
        self._connection.cancel(call)
        self._stream_ended = True
        self._flush()
        self._settle()

    def credit(self, call: LaneCall) -> None:
        """Give back what a resumed call has been holding."""
        self._connection.credit(call)
        self._flush()

    def feed(self, call: LaneCall) -> None:
        """Send what a call's Outgoing holds by the end of this turn of the loop, in one write with all else."""
        self._fed.append(call)
        self._flush_soon()

    def close(self, reason: str) -> None:
        """End every call with UNAVAILABLE, say goodbye and close; a peer that doesn't read delays it by CLOSE_TIMEOUT_S."""
        self._shut(ErrorCode.NO_ERROR, reason)
        if not self.closed.done():
            self._loop.call_later(CLOSE_TIMEOUT_S, self.abort)

    def abort(self) -> None:
        """Close at once; harmless when closed, or never opened."""
        if self._transport is not None:
            self._transport.abort()

    # -- for the event loop --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance check: uvloop's transports aren't asyncio.Transport by type.
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _TCP_OPTIONS:
                if hasattr(socket, name):  # not every system has them all
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._keepalive = self._loop.call_later(KEEPALIVE_S, self._check_alive)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard = self._in_read = True
        connection = self._connection
        for call in connection.receive(data):
            call.deliver()
            connection.credit(call)
            if call.status is not None:
                self._stream_ended = True
        self._in_read = False
        self._flush()
        self._settle()

    def eof_received(self) -> None:
        """Have the transport close: a worker that sends no more has no answers left."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._shut(ErrorCode.NO_ERROR, str(exc) if exc is not None else "the worker closed it")
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        # Requests of one message need no brake of their own: they are held anyway. Others might go on for ever within a vast window.
        self._writing_paused = True
        self._connection.cork()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._connection.uncork()
        self._tell_freed()
        self._flush()

    # -- both ----------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        """Flush at the end of this turn of the loop: what is begun and sent in one turn leaves in one system call."""
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _tell_freed(self) -> None:
        """Have calls whose Outgoing was emptied hear of it in the loop's next turn."""
        for call in self._connection.take_freed():
            self._loop.call_soon(call.deliver)

    def _flush(self) -> None:
        if self._in_read:
            return
        self._flush_is_due = False
        if self._fed:
            fed, self._fed = self._fed, []
            for call in fed:
                self._connection.push(call)
            self._tell_freed()
        output = self._connection.take_output()
        if output and self._transport is not None and not self._transport.is_closing():
            self._transport.write(output)
            if not self._writing_paused:
                self._connection.output_was_read()

    def _settle(self) -> None:
        """Act on what the connection has become."""
        if self._in_read:
            return
        connection = self._connection
        if connection.state is ConnectionState.OPEN:
            if not self.greeted.done():
                self.greeted.set_result("")
            if self._stream_ended:
                self._stream_ended = False
                self._on_change(self)
            return
        if connection.state is ConnectionState.CLOSED:
            self._shut(ErrorCode.NO_ERROR, connection.failure)
        elif connection.state is ConnectionState.DRAINING:
            self._on_change(self)
            if not connection.open_streams:
                self._shut(ErrorCode.NO_ERROR, connection.failure)

    def _shut(self, code: ErrorCode, reason: str) -> None:
        """Close connection and transport, whichever still is open."""
        for call in self._connection.close(code, reason):
            call.deliver()
        self._flush()
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None
        if not self.greeted.done():
            self.greeted.set_result(self._connection.failure)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
        self._on_change(self)

    def _check_alive(self) -> None:
        """Ping a peer that has been silent while calls wait for it; give up on one that doesn't answer."""
        if self._heard or not self._connection.open_streams:
            self._heard = self._pinged = False
        elif self._pinged:
            self._shut(ErrorCode.NO_ERROR, f"no answer to a ping in {KEEPALIVE_TIMEOUT_S:g} s")
            self.abort()
            return
        else:
            self._pinged = True
            self._connection.ping()
            self._flush()
        self._keepalive = self._loop.call_later(KEEPALIVE_TIMEOUT_S if self._pinged else KEEPALIVE_S, self._check_alive)
