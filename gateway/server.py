"""uvicorn, made to serve streams: its connections can be aborted, and the drain on a signal is ours.

Called by serve.py. What a client may take of time and room before it has made its request is guard.py's. Streams are
answered ahead of ASGI, without a task (direct.py). For everything else the protocols add one entry to the ASGI scope's
extensions, themselves as a ClientLink (endpoints/connection.py): closing a connection whose reader has stalled would wait
for it for ever, so it can be aborted, and its loss is heard of without a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from websockets.protocol import State

from gateway.certificates import subject
from gateway.codec.websocket import text_frames
from gateway.direct import DirectExchange
from gateway.endpoints.clients import TLS_EXTENSION
from gateway.endpoints.connection import LINK_EXTENSION
from gateway.guard import ConnectionLimits, GuardedHttp, GuardedState
from gateway.pacing import PacedWebSocket

_log = structlog.get_logger("gateway.server")

KEEPALIVE_IDLE_S = 30
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_PROBES = 3
# <netinet/tcp.h>
TCP_ESTABLISHED = 1
BACKLOG = 2048
# Pieces that a client may send one WebSocket message in: empty ones would add nothing to its size.
FRAGMENTS_LIMIT = 1024
# How long TLS waits for its client's part of the end.
TLS_SHUTDOWN_S = 5.0


class LinkedHttp(GuardedHttp):
    """HTTP/1.1 that answers streams and calls without ASGI (direct.py), and is all other responses' ClientLink.

    TCP keepalive is on, so that a vanished peer is noticed.
    """

    on_lost: Callable[[], None] | None = None
    lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _keep_alive(transport)

    def extensions(self, transport: asyncio.Transport) -> dict[str, Any]:
        # The ASGI types want a dict for each extension; ours is an object that only our own responses look for.
        return {LINK_EXTENSION: self, **_tls_extension(transport)}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = True
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.intake is not None and self.intake.current is not None:
            self.intake.current.on_writable()

    @property
    def request_complete(self) -> bool:
        return self.cycle is None or not self.cycle.more_body

    def abort(self) -> None:
        # As uvicorn will set it in a moment: a response that returns before that is no mistake of the application's.
        if self.cycle is not None:
            self.cycle.disconnected = True
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


class LinkedWebSocket(PacedWebSocket):
    """WebSocket that is its socket's SocketLink. Its connection was LinkedHttp's, and is still one of those that are counted."""

    def __init__(self, config: Any, server_state: GuardedState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._peers = server_state.peers

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._peers.leave(self.client)
        # A generator of the connection's own, which would keep it for the collector; nothing is parsed any more.
        self.conn.parser.close()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        # It has us in it.
        nothing: Any = None
        self.scope = nothing

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code != 101:
            # The handshake was refused: there is no scope.
            return
        extensions: Any = {**(self.scope.get("extensions") or {}), LINK_EXTENSION: self, **_tls_extension(self.transport)}
        self.scope["extensions"] = extensions

    def handle_cont(self, event: Any) -> None:
        if len(self.frames) >= FRAGMENTS_LIMIT:
            self.conn.fail(1009, f"a message of more than {FRAGMENTS_LIMIT} fragments")
            self.handle_parser_exception()
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer as the base does, but nothing to a client that doesn't take our answers: they would pile up here."""
        answers = self.conn.data_to_send()
        if self.writable.is_set():
            self.transport.write(b"".join(answers))

    def keepalive_timeout(self) -> None:
        if (self.read_paused or self._rest or self.heard) and self.ping_timeout and not self.transport.is_closing():
            # Where the application makes the client wait (sending.py), the pong may stand unread behind what it has sent.
            self.heard = False
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        if self.transport.get_write_buffer_size():
            # The base waits until it is empty, which a client that is gone will not see to.
            self.transport.abort()

    async def send(self, message: Any) -> None:
        """Send as the base does; it forgets the server's headers on a refusal, and takes one for an application's mistake."""
        if message["type"] == "websocket.http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *self.default_headers]}
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def abort(self) -> None:
        self.transport.abort()

    def is_gone(self) -> bool:
        """Return whether the client has hung up, also where what it sent before is yet to be read; elsewhere than on Linux, once it is.

        A ping goes out for the next time that this is asked: a peer's system answers it with a reset where nobody is there any more, and
        says nothing by itself while there is no room for what it has yet to send.
        """
        if self.disconnected or self.transport.is_closing():
            return True
        if self.conn.state is State.OPEN and not self.transport.get_write_buffer_size():
            self.conn.send_ping(b"there?")
            self.transport.write(b"".join(self.conn.data_to_send()))
        sock = self.transport.get_extra_info("socket")
        if sock is None or not hasattr(socket, "TCP_INFO") or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        try:
            # The first byte of struct tcp_info is the state.
            return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED)
        except OSError:
            # It was closed for the ping.
            return True

    def write_messages(self, messages: Sequence[bytes]) -> bool:
        """Write text messages now, all in one; the protocol's own state says only whether a close is under way."""
        if not self.writable.is_set() or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return False
        self.transport.write(text_frames(messages))
        return True


class Server(uvicorn.Server):
    """uvicorn's server with our drain: the first signal drains and then stops, the second stops at once."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], Awaitable[None]],
        limits: ConnectionLimits,
        tls: ssl.SSLContext | None,
        reload: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self.server_state = self._state = GuardedState(limits)
        # The second signal, where one has come.
        self.forced_by: signal.Signals | None = None
        # Whether the app has ended before it was told to.
        self.failed = False
        self._drain = drain
        self._reload = reload
        self._tls = tls
        self._signalled = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and, where there is something to reload, SIGHUP by the event loop: what they start is a coroutine."""
        loop = asyncio.get_running_loop()
        signals = [signal.SIGTERM, signal.SIGINT]
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, number)
        if self._reload is not None:
            signals.append(signal.SIGHUP)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Start the app and listen. The base has no way to bound a TLS handshake, nor to take a context that can be reloaded."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        tls: dict[str, Any] = {}
        if self._tls is not None:
            handshake_s = self._state.limits.head_timeout_s
            tls = {"ssl": self._tls, "ssl_handshake_timeout": handshake_s, "ssl_shutdown_timeout": TLS_SHUTDOWN_S}
        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(self._protocol, sock=sock, backlog=BACKLOG, **tls) for sock in sockets or ()]
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        return LinkedHttp(self.config, self._state, self.lifespan.state)

    async def main_loop(self) -> None:
        """Serve until a signal, then drain while requests are still answered. A failed app has nothing to serve: stop at once."""
        ticker = asyncio.ensure_future(super().main_loop())
        signalled = asyncio.ensure_future(self._signalled.wait())
        failed = asyncio.ensure_future(self.lifespan.shutdown_event.wait())
        await asyncio.wait((ticker, signalled, failed), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if failed.done():
            _log.error("a part of the gateway has failed: stopping")
            self.failed = self.should_exit = True
            await ticker
        failed.cancel()
        if not ticker.done():
            drain = asyncio.ensure_future(self._drain())
            await asyncio.wait((ticker, drain), return_when=asyncio.FIRST_COMPLETED)
            drain.cancel()
            self.should_exit = True
            await ticker

    def held_bytes(self) -> int:
        """Return what is held for all connections: what slow ones have yet to take, and the parts of bodies that are being read."""
        return sum(_held_bytes(connection) for connection in list(self._state.connections))

    def _on_signal(self, number: signal.Signals) -> None:
        if self._signalled.is_set():
            _log.warning("second signal: stopping at once")
            self.forced_by = number
            self.should_exit = self.force_exit = True
        else:
            _log.info("signal: draining", signal=number.name)
            self._leave()
            self._signalled.set()

    def _leave(self) -> None:
        """Have each connection close behind its response, this one or the next: those who stayed would hold on to a gateway that goes."""
        self._state.leaving = True
        for connection in self._state.connections:
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                cycle.keep_alive = False


def build(
    app: ASGIApp,
    *,
    drain: Callable[[], Awaitable[None]],
    limits: ConnectionLimits | None = None,
    tls: ssl.SSLContext | None = None,
    reload: Callable[[], None] | None = None,
) -> Server:
    """Return the server for an app. `drain` is awaited on the first signal, while requests are still answered.

    `limits` None: those of ConnectionLimits itself. `tls` None: plain HTTP. `reload` is called on SIGHUP.
    """
    limits = limits or ConnectionLimits()
    config = uvicorn.Config(
        app,
        http=LinkedHttp,
        ws=LinkedWebSocket,
        ws_max_size=limits.message_bytes,
        ws_ping_interval=limits.ping_s,
        ws_ping_timeout=limits.ping_s,
        # Compression costs 7 µs a message and a window of memory for each socket.
        ws_per_message_deflate=False,
        lifespan="on",
        # endpoints/clients.py does that, for those who look at the client's address.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        # Whatever we answer, a browser takes it for what we say it is.
        headers=[("x-content-type-options", "nosniff")],
        # After our drain everything has ended; this is for what ignores that.
        timeout_graceful_shutdown=3,
    )
    return Server(config, drain, limits, tls, reload)


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
        sock.listen(BACKLOG)
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


def _held_bytes(connection: Any) -> int:
    transport, cycle = connection.transport, getattr(connection, "cycle", None)
    held: int = 0 if transport is None or transport.is_closing() else transport.get_write_buffer_size()
    if isinstance(cycle, DirectExchange):
        held += cycle.body_bytes
    elif cycle is not None:
        held += len(cycle.body)
    return held


def _tls_extension(transport: asyncio.Transport) -> Mapping[str, Any]:
    """Return what ASGI's extensions say of the client's certificate; nothing where it has shown none."""
    certificate = transport.get_extra_info("peercert")
    return {TLS_EXTENSION: {"client_cert_name": subject(certificate)}} if certificate else {}


def _keep_alive(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
