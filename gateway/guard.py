"""What a client may take of our time and room before its request is there: uvicorn's HTTP/1.1 with bounds.

The base of server.py's protocol. uvicorn reads heads of any size for as long as a client likes, has no limit to slow bodies,
and answers what it can't read in plain text. Here every connection is waiting for something, or is answering:

    waits for     from                                          at most                     then
    a request     the connection; the last answer               head_ / keep_alive_timeout  closed
    the head      the connection; the request's first byte      head_timeout                408
    the body      the head                                      body_timeout, and a second  408
                                                                for each body_rate bytes
    nothing       the request is complete                       until the answer is over

One timer a connection looks which it is (patience.py); a request that arrives in one piece touches none. What is refused here
is answered by a problem document and closed: the client may still be sending, so it is listened to for a moment, since
closing at once would take the answer back (RFC 9112 §9.6). Where an answer is under way already, the connection is cut.
"""

from __future__ import annotations

import http
from collections.abc import Container
from dataclasses import dataclass
from enum import Enum
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.endpoints.problem import problem_response
from gateway.errors import GatewayError
from gateway.patience import Patience
from gateway.peers import Peers
from gateway.telemetry.tally import OTHER

# How long a client that was refused may go on sending.
LINGER_S = 1.0
# Requests that may wait behind the one that is being answered; nobody who pipelines sends more at once.
PIPELINE_LIMIT = 32
# What chunks, their extensions and trailers may add to a body, as a multiple of it: one of 1-byte chunks has six times its size.
FRAMING_FACTOR = 8

_log = structlog.get_logger("gateway.server")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """See `[server]` in the settings. `uncounted`: addresses that `connections_per_address` is not for."""

    head_bytes: int = 64 * 1024
    head_fields: int = 100
    head_timeout_s: float = 10.0
    keep_alive_timeout_s: float = 65.0
    body_timeout_s: float = 30.0
    body_rate_bytes_s: int = 4096
    connections: int = 20_000
    connections_per_address: int = 0
    uncounted: Container[str] = ()
    # Of a WebSocket message, in one frame or in many; between pings.
    message_bytes: int = 1024 * 1024
    ping_s: float = 20.0


class GuardedState(ServerState):
    """What all connections of a server share."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.limits = limits
        self.peers = Peers(limits.connections, limits.connections_per_address, limits.uncounted)


class Part(Enum):
    """What of a request the parser is in."""

    NONE = 0
    HEAD = 1
    BODY = 2


class GuardedHttp(HttpToolsProtocol):
    """HTTP/1.1 with bounds. `take_head`, `take_body` and `take_end` are the parser's callbacks for what has passed them."""

    def __init__(self, config: Any, server_state: GuardedState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = server_state.limits
        self._peers = server_state.peers
        self._counted = False
        self._part = Part.NONE
        # Since when we wait for that part, or for a request; None: since the data that is being read.
        self._since: float | None = None
        # What was read of the head, or for the body; and of the body itself.
        self._read_bytes = 0
        self._body_bytes = 0
        # The data that is being read, where all of it may belong to the request that begins in it.
        self._fresh_bytes = 0
        # It was refused: what still comes is dropped.
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._patience = Patience(self._look)
        try:
            self._peers.enter(self.client)
        except GatewayError as error:
            self._refuse(error)
            return
        self._counted = True
        self._since = self._patience.time()
        self._patience.by(self._since + self._limits.head_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._patience.end()
        if self._counted:
            self._counted = False
            self._peers.leave(self.client)

    def handle_websocket_upgrade(self) -> None:
        # The connection is the socket's from now on, its place among the peers included.
        self._patience.end()
        self._counted = False
        super().handle_websocket_upgrade()
        # We hear no more of the connection, its loss included: what refers back to us goes now.
        nothing: Any = None
        self.parser = self.cycle = self.scope = nothing

    # What comes.

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._part is Part.NONE:
            self._fresh_bytes = len(data)
        else:
            self._fresh_bytes = 0
            self._read_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Any other upgrade is only offered (RFC 9110 §7.8): the request is answered as it is.
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                if frames := data[upgrade.args[0] :]:
                    # The base would lose them.
                    protocol: Any = self.transport.get_protocol()
                    protocol.data_received(frames)
        except httptools.HttpParserError as exc:
            self._refuse(_reason(exc))
        else:
            if self._part is not Part.NONE:
                self._wait_for_the_rest()

    def _wait_for_the_rest(self) -> None:
        """Look at how much there is of a request that is not complete, and when the rest has to be there."""
        limits = self._limits
        if self._part is Part.HEAD:
            if self._read_bytes > limits.head_bytes:
                self._refuse(_head_too_large(limits))
                return
            timeout_s = limits.head_timeout_s
        else:
            if self._read_bytes > FRAMING_FACTOR * self._body_bytes + limits.head_bytes or len(self.headers) > limits.head_fields:
                self._refuse(GatewayError("invalid-request", "The body has more framing or trailers than content"))
                return
            timeout_s = limits.body_timeout_s
        if self._since is None:
            self._since = self._patience.time()
            self._patience.by(self._since + timeout_s)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = Part.HEAD
        self._read_bytes, self._fresh_bytes = self._fresh_bytes, 0
        if self.cycle is not None:
            self._since = None

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, or hand it on.

        Raises:
            GatewayError: it is refused; the parser stops, and `data_received` hears of it.
        """
        limits = self._limits
        if len(self.headers) > limits.head_fields or (self._read_bytes > limits.head_bytes and self._head_size() > limits.head_bytes):
            raise _head_too_large(limits)
        if len(self.pipeline) >= PIPELINE_LIMIT:
            raise GatewayError("invalid-request", f"More than {PIPELINE_LIMIT} requests are waiting for their answers")
        self._part = Part.BODY
        self._since = None
        self._read_bytes = self._body_bytes = 0
        self.take_head()
        if not self.parser.should_upgrade():
            # What still comes are trailers: no part of the head, which was checked.
            self.headers = []

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self.take_body(body)

    def on_message_complete(self) -> None:
        self._part = Part.NONE
        self.take_end()

    def take_head(self) -> None:
        super().on_headers_complete()

    def take_body(self, body: bytes) -> None:
        super().on_body(body)

    def take_end(self) -> None:
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Do what the base does, whose keep-alive time-out is made for every response and nearly never needed."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._part is not Part.BODY:
            self._since = now = self._patience.time()
            self._patience.by(now + (self._limits.keep_alive_timeout_s if self._part is Part.NONE else self._limits.head_timeout_s))

    def _head_size(self) -> int:
        """How many bytes the head has, nearly: without the version, and with the usual white space."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    # What does not come.

    def _look(self, now: float) -> float | None:
        """Act if what we wait for has not come in time; return when to look again."""
        limits, since = self._limits, self._since
        if self._refused:
            self.transport.abort()
            return None
        if since is None:
            return None
        if self._part is Part.NONE:
            if self._is_answering:
                return None
            due = since + (limits.head_timeout_s if self.cycle is None else limits.keep_alive_timeout_s)
            if now >= due:
                self.transport.close()
                return None
        elif self._part is Part.HEAD:
            # While there is an answer under way nobody minds how long the next request takes.
            due = now + limits.head_timeout_s if self._is_answering else since + limits.head_timeout_s
            if now >= due:
                self._refuse(GatewayError("request-timeout", f"The head was not complete within {limits.head_timeout_s:g} s"))
                return now + LINGER_S
        else:
            due = since + limits.body_timeout_s + self._body_bytes / limits.body_rate_bytes_s
            if self.flow.read_paused:
                # It is us who do not read.
                due = max(due, now + limits.body_timeout_s)
            if now >= due:
                allowed = f"{limits.body_timeout_s:g} s and a second for every {limits.body_rate_bytes_s} bytes"
                self._refuse(GatewayError("request-timeout", f"The body was not complete within {allowed}"))
                return now + LINGER_S
        return due

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _may_answer(self) -> bool:
        """Whether nothing was sent yet of the answer to the request that is coming, and no other answer is under way."""
        if not self._is_answering:
            return self._part is not Part.BODY or self.cycle is None
        started = isinstance(self.cycle, RequestResponseCycle) and self.cycle.response_started
        return self._part is Part.BODY and not self.pipeline and not started

    def _refuse(self, error: GatewayError) -> None:
        """Answer with a problem and close, in a moment; cut the connection where that would end up within another answer."""
        self._refused = True
        _log.debug("connection refused", problem=error.problem, detail=error.detail, client=self.client and self.client[0])
        if not self._may_answer:
            self.transport.abort()
            return
        responses = getattr(self.app, "responses", None)
        if responses is not None:
            responses.response_began(OTHER, error.http_status)
        self.transport.write(_answer(error, self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._patience.stop()
        self._patience.by(self._patience.time() + LINGER_S)


def _reason(exc: httptools.HttpParserError) -> GatewayError:
    """Return what is wrong with what the parser has stopped at."""
    within = exc.__context__ if isinstance(exc, httptools.HttpParserCallbackError) else None
    if isinstance(within, GatewayError):
        return within
    if within is not None and not isinstance(within, httptools.HttpParserError):
        _log.error("unexpected error", exc_info=within)
        return GatewayError("internal", "Something went wrong here; the server's log says what")
    return GatewayError("invalid-request", f"This is not HTTP/1.1: {within or exc}"[:200])


def _head_too_large(limits: ConnectionLimits) -> GatewayError:
    return GatewayError("head-too-large", f"The head of a request may have {limits.head_bytes} bytes and {limits.head_fields} fields")


def _answer(error: GatewayError, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a whole response, after which the connection is closed."""
    response = problem_response(error)
    status = b"HTTP/1.1 %d %b\r\n" % (error.http_status, http.HTTPStatus(error.http_status).phrase.encode())
    fields = b"".join(b"%b: %b\r\n" % field for field in (*headers, *response.raw_headers))
    return b"%b%bconnection: close\r\n\r\n%b" % (status, fields, bytes(response.body))
