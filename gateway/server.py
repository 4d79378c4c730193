"""uvicorn, made to serve streams: its connections can be aborted, and the drain on a signal is ours.

Called by serve.py. Streams are answered ahead of ASGI, without a task (direct.py). For everything else the protocols
add one entry to the ASGI scope's extensions, themselves as a ClientLink (endpoints/connection.py): closing a
connection whose reader has stalled would wait for it for ever, so it can be aborted, and its loss is heard of
without a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import httptools
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from gateway.codec.websocket import text_frames
from gateway.direct import DirectExchange
from gateway.endpoints.connection import LINK_EXTENSION
from gateway.intake import Intake

_log = structlog.get_logger("gateway.server")

KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 3


class LinkedHttp(HttpToolsProtocol):
    """HTTP/1.1 that answers streams and calls without ASGI (direct.py), and is all other responses' ClientLink.

    Its parser talks to an Intake, which passes on to this protocol what goes uvicorn's way. TCP keepalive is on, so that a
    vanished peer is noticed.
    """

    on_lost: Callable[[], None] | None = None
    # From the connection's beginning to its end: the two of them refer to each other.
    intake: Intake | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _keep_alive(transport)
        self.intake = Intake(self)
        self.parser = httptools.HttpRequestParser(self.intake)
        # As the base has it: what comes behind the last request is the client's mistake and not worth an answer.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()
        intake, self.intake = self.intake, None
        if intake is not None:
            intake.lost()
        if isinstance(self.cycle, DirectExchange):
            # With it, the connection would be a cycle of objects, which only the collector undoes.
            nothing: Any = None
            self.cycle = nothing

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.intake is not None and self.intake.current is not None:
            self.intake.current.on_writable()

    def pass_on(self, url: bytes, headers: list[tuple[bytes, bytes]], scope: Any, expects_continue: bool) -> None:
        """Take a request that is to be answered under ASGI, as if its headers had just come from the parser."""
        self.url = url
        self.headers = headers
        self.scope = scope
        self.expect_100_continue = expects_continue
        self.on_headers_complete()

    def on_response_complete(self) -> None:
        """Do what the base does, but for its keep-alive time-out, which is the intake's."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.intake is not None:
            self.intake.rest()

    @property
    def request_complete(self) -> bool:
        return not self.cycle.more_body

    def abort(self) -> None:
        self.transport.abort()

    def answer_with(self, response: ASGIApp, scope: Any, *, more_body: bool) -> None:
        """Have uvicorn answer the current request, whose body was taken, by an ASGI application."""
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=self.cycle.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = more_body
        cycle.message_event.set()
        self.cycle = cycle
        application: Any = response
        self._start_asgi_task(cycle, application)


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
    # Named: asyncio switches Nagle off only for sockets that say they are TCP, and an answer of two writes would take 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
