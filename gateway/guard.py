"""What a client may take of our time and room before its request is there: uvicorn's HTTP/1.1 with bounds.

The base of server.py's protocol. uvicorn reads heads of any size for as long as a client likes, has no limit to slow bodies,
and answers what it can't read in plain text. Here every connection is waiting for something, or is answering:

    waits for     from                                          at most                     then
    a request     the connection; the last answer               head_ / keep_alive_timeout  closed
    the head      the connection; the request's first byte      head_timeout                408
    the body      the head                                      body_timeout, and a second  408
                                                                for each body_rate bytes
    nothing       the request is complete                       until the answer is over

One timer a connection looks which it is (patience.py); a request that arrives in one piece touches none. What the parser has
come to is intake.py's. What is refused here is answered by a problem document and closed: the client may still be sending, so
it is listened to for a moment, since closing at once would take the answer back (RFC 9112 §9.6). Where an answer is under way
already, the connection is cut.
"""

from __future__ import annotations

import http
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.endpoints.problem import problem_response
from gateway.errors import GatewayError
from gateway.intake import BODY, HEAD, NOTHING, Intake, head_too_large
from gateway.patience import Patience
from gateway.peers import Peers
from gateway.telemetry.tally import OTHER

# How long a client that was refused may go on sending.
LINGER_S = 1.0
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
    """What all connections of a server share. `leaving`: the server drains, so no connection is kept for another request."""

    leaving = False

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__()
        self.limits = limits
        self.peers = Peers(limits.connections, limits.connections_per_address, limits.uncounted)


class GuardedHttp(HttpToolsProtocol):
    """HTTP/1.1 with bounds. Its parser talks to an Intake, which passes on to this protocol what goes uvicorn's way."""

    # From the connection's beginning to its end: the two of them refer to each other.
    intake: Intake | None = None

    def __init__(self, config: Any, server_state: GuardedState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = server_state.limits
        self._peers = server_state.peers
        self._counted = False
        # It was refused: what still comes is dropped.
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._patience = Patience(self._look)
        self.intake = intake = Intake(self, self._patience, self.extensions(transport))
        self.parser = httptools.HttpRequestParser(intake)
        # As the base has it: what comes behind the last request is the client's mistake and not worth an answer.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self._peers.enter(self.client)
        except GatewayError as error:
            self._refuse(error)
            return
        self._counted = True
        intake.since = now = self._patience.time()
        self._patience.by(now + self.limits.head_timeout_s)

    def extensions(self, transport: Any) -> dict[str, Any]:
        """Return the extensions of the ASGI scopes of this connection's requests."""
        return {}

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._patience.end()
        if self._counted:
            self._counted = False
            self._peers.leave(self.client)
        intake, self.intake = self.intake, None
        if intake is not None:
            intake.lost()
        # With them, the connection would be a cycle of objects, which only the collector undoes.
        nothing: Any = None
        self.cycle = self.scope = nothing

    def handle_websocket_upgrade(self) -> None:
        # The connection is the socket's from now on, its place among the peers included.
        self._patience.end()
        self._counted = False
        super().handle_websocket_upgrade()
        # We hear no more of the connection, its loss included: what refers back to us goes now.
        nothing: Any = None
        self.parser = self.intake = self.cycle = self.scope = nothing

    # What comes.

    def data_received(self, data: bytes) -> None:
        intake = self.intake
        if self._refused or intake is None:
            return
        intake.reading(len(data))
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
            if intake.part != NOTHING:
                self._wait_for_the_rest(intake)

    def _wait_for_the_rest(self, intake: Intake) -> None:
        """Look at how much there is of a request that is not complete, and when the rest has to be there."""
        limits = self.limits
        if intake.part == HEAD:
            if intake.read_bytes > limits.head_bytes:
                self._refuse(head_too_large(limits.head_bytes, limits.head_fields))
                return
            timeout_s = limits.head_timeout_s
        else:
            if intake.read_bytes > FRAMING_FACTOR * intake.body_bytes + limits.head_bytes or intake.trailers > limits.head_fields:
                self._refuse(GatewayError("invalid-request", "The body has more framing or trailers than content"))
                return
            timeout_s = limits.body_timeout_s
        if intake.since is None:
            intake.since = now = self._patience.time()
            self._patience.by(now + timeout_s)

    def pass_on(self, url: bytes, headers: list[tuple[bytes, bytes]], scope: Any, expects_continue: bool) -> None:
        """Take a request that is to be answered under ASGI, as if its headers had just come from the parser."""
        self.url = url
        self.headers = headers
        self.scope = scope
        self.expect_100_continue = expects_continue
        self.on_headers_complete()

    def on_response_complete(self) -> None:
        """Do what the base does, whose keep-alive time-out is made for every response and nearly never needed."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.intake is not None and self.intake.part == NOTHING:
            self.intake.rest()
        elif self.intake is not None and self.intake.part == HEAD:
            self.intake.since = now = self._patience.time()
            self._patience.by(now + self.limits.head_timeout_s)

    # What does not come.

    def _look(self, now: float) -> float | None:
        """Act if what we wait for has not come in time; return when to look again."""
        limits, intake = self.limits, self.intake
        if self._refused:
            self.transport.abort()
            return None
        if intake is None or intake.since is None:
            return None
        since = intake.since
        if intake.part == NOTHING:
            if self._is_answering:
                return None
            due = since + (limits.head_timeout_s if self.cycle is None else limits.keep_alive_timeout_s)
            if now >= due:
                self.transport.close()
                return None
        elif intake.part == HEAD:
            # While there is an answer under way nobody minds how long the next request takes.
            due = now + limits.head_timeout_s if self._is_answering else since + limits.head_timeout_s
            if now >= due:
                self._refuse(GatewayError("request-timeout", f"The head was not complete within {limits.head_timeout_s:g} s"))
                return now + LINGER_S
        else:
            due = since + limits.body_timeout_s + intake.body_bytes / limits.body_rate_bytes_s
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
        is_in_body = self.intake is not None and self.intake.part == BODY
        if not self._is_answering:
            return not is_in_body or self.cycle is None
        started = isinstance(self.cycle, RequestResponseCycle) and self.cycle.response_started
        return is_in_body and not self.pipeline and not started

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


def _answer(error: GatewayError, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a whole response, after which the connection is closed."""
    response = problem_response(error)
    status = b"HTTP/1.1 %d %b\r\n" % (error.http_status, http.HTTPStatus(error.http_status).phrase.encode())
    fields = b"".join(b"%b: %b\r\n" % field for field in (*headers, *response.raw_headers))
    return b"%b%bconnection: close\r\n\r\n%b" % (status, fields, bytes(response.body))
