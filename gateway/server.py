"""uvicorn, made to serve streams: its connections can be aborted, and the drain on a signal is ours.

Called by serve.py. The protocols add one entry to the ASGI scope's extensions, themselves as a ClientLink
(endpoints/connection.py): closing a connection whose reader has stalled would wait for it for ever, so it can be
aborted, and a stream is written and its loss heard of without a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from gateway.codec.websocket import text_frames
from gateway.endpoints.connection import LINK_EXTENSION

_log = structlog.get_logger("gateway.server")

KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 3
# From this size on, three buffers in one system call are cheaper than one copy.
JOIN_LIMIT_BYTES = 16 * 1024


class Corkable:
    """The transport as one response writes to it: what it writes while corked leaves in one system call.

    A short stream's head and its chunks would be two.
    """

    __slots__ = ("_held", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._held is None:
            self._transport.write(data)
        else:
            self._held.append(data)

    def cork(self) -> None:
        self._held = []

    def uncork(self) -> None:
        held, self._held = self._held, None
        if held:
            self._transport.write(b"".join(held))

    def close(self) -> None:
        self.uncork()
        self._transport.close()


class LinkedHttp(HttpToolsProtocol):
    """HTTP/1.1 that is its responses' ClientLink, with TCP keepalive so that a vanished peer is noticed."""

    on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _keep_alive(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # The ASGI types want a dict for each extension; ours is an object that only our own responses look for.
        extensions: Any = {LINK_EXTENSION: self}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            corkable: Any = Corkable(self.transport)
            self.cycle.transport = corkable

    @property
    def request_complete(self) -> bool:
        return not self.cycle.more_body

    def cork(self) -> Callable[[], None]:
        corkable: Any = self.cycle.transport
        corkable.cork()
        uncork: Callable[[], None] = corkable.uncork
        return uncork

    def abort(self) -> None:
        self.transport.abort()

    def write_part(self, body: bytes) -> bool:
        """Write a part of a chunked response (RFC 9112 §7.1) now; False where `send` would have to wait, or nobody reads.

        It is for responses without a content-length, which uvicorn sends chunked, and keeps no state of its own there.
        """
        if self.flow.write_paused or self.transport.is_closing():
            return False
        if len(body) < JOIN_LIMIT_BYTES:
            self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        else:
            self.transport.writelines((b"%x\r\n" % len(body), body, b"\r\n"))
        return True


class LinkedWebSocket(WebSocketsSansIOProtocol):
    """WebSocket that is its socket's SocketLink."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code != 101:
            # The handshake was refused: there is no scope.
            return
        extensions: Any = {**(self.scope.get("extensions") or {}), LINK_EXTENSION: self}
        self.scope["extensions"] = extensions

    def abort(self) -> None:
        self.transport.abort()

    def write_messages(self, messages: Sequence[bytes]) -> bool:
        """Write text messages now, all in one; the protocol's own state says only whether a close is under way."""
        if not self.writable.is_set() or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return False
        self.transport.write(text_frames(messages))
        return True


class Server(uvicorn.Server):
    """uvicorn's server with our drain: the first signal drains and then stops, the second stops at once."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._signalled = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT by the event loop: what they start is a coroutine."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def main_loop(self) -> None:
        """Serve until a signal, then drain while requests are still answered."""
        ticker = asyncio.ensure_future(super().main_loop())
        signalled = asyncio.ensure_future(self._signalled.wait())
        await asyncio.wait((ticker, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if not ticker.done():
            drain = asyncio.ensure_future(self._drain())
            await asyncio.wait((ticker, drain), return_when=asyncio.FIRST_COMPLETED)
            drain.cancel()
            self.should_exit = True
            await ticker

    def _on_signal(self) -> None:
        if self._signalled.is_set():
            _log.warning("second signal: stopping at once")
            self.should_exit = self.force_exit = True
        else:
            _log.info("signal: draining")
            self._signalled.set()


def build(app: ASGIApp, *, drain: Callable[[], Awaitable[None]], frame_limit_bytes: int) -> Server:
    """Return the server for an app. `drain` is awaited on the first signal, while requests are still answered."""
    config = uvicorn.Config(
        app,
        http=LinkedHttp,
        ws=LinkedWebSocket,
        ws_max_size=frame_limit_bytes,
        # Compression costs 7 µs a message and a window of memory for each socket.
        ws_per_message_deflate=False,
        lifespan="on",
        # Nothing here looks at the client's address, which is all that these headers would change.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        # After our drain everything has ended; this is for what ignores that.
        timeout_graceful_shutdown=3,
    )
    return Server(config, drain)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address can't be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(False)
    return sock


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop where there is one."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def _keep_alive(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
