"""A connection's requests as the HTTP parser tells of them, until it is known which way each is answered.

Made by server.py for each connection; httptools calls it. Once a request's headers are there it is answered ahead of ASGI
where it can be (direct.py); else uvicorn's protocol gets to know all that it would know by itself. Between requests it also
keeps the connection's idle time: a timer for each connection and not for each response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from gateway import timers
from gateway.direct import DirectExchange
from gateway.endpoints.connection import LINK_EXTENSION
from gateway.endpoints.endpoint import endpoint_of
from gateway.endpoints.express import ExpressApp

if TYPE_CHECKING:
    from gateway.server import LinkedHttp


@final
class Intake:
    """The parser's callbacks, in the order in which they come: one request after another, maybe before the last is answered."""

    __slots__ = (
        "_app",
        "_exchange",
        "_expects_continue",
        "_has_connection_field",
        "_headers",
        "_idle_since",
        "_idle_timer",
        "_is_idle",
        "_passed_on",
        "_template",
        "_timers",
        "_url",
        "current",
        "flow",
        "loop",
        "protocol",
        "server_state",
        "transport",
    )

    def __init__(self, protocol: LinkedHttp) -> None:
        app: Any = protocol.app
        # None: another app, whose requests all go uvicorn's way.
        self._app: ExpressApp | None = app if isinstance(app, ExpressApp) else None
        self.protocol = protocol
        self._timers = timers.running()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects_continue = False
        self._has_connection_field = False
        # The request whose parts come: answered directly, or passed on to uvicorn; neither before its headers are there.
        self._exchange: DirectExchange | None = None
        self._passed_on = False
        # The request that is being answered directly.
        self.current: DirectExchange | None = None
        self._is_idle = True
        self._idle_since = 0.0
        self._idle_timer: timers.Timer | None = None
        self.transport: Any = protocol.transport
        self.flow: Any = protocol.flow
        self.loop: Any = protocol.loop
        self.server_state: Any = protocol.server_state
        # What the ASGI scopes of all requests on this connection have in common.
        self._template: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": protocol.server,
            "client": protocol.client,
            "scheme": protocol.scheme,
            "root_path": protocol.root_path,
            # The ASGI types want a dict for each extension; ours is an object that only our own responses look for.
            "extensions": {LINK_EXTENSION: protocol},
        }

    # The parser's.

    def on_message_begin(self) -> None:
        self._is_idle = False
        self._url = b""
        self._headers = []
        self._expects_continue = self._has_connection_field = self._passed_on = False
        self._exchange = None

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self._passed_on:
            # A trailer field.
            self.protocol.headers.append((name, value))
        elif self._exchange is None:
            if name == b"connection":
                self._has_connection_field = True
            elif name == b"expect" and value.lower() == b"100-continue":
                self._expects_continue = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        protocol: Any = self.protocol
        scope = self._scope()
        cycle = protocol.cycle
        if (cycle is None or cycle.response_complete) and (exchange := self._direct(scope)) is not None:
            self._exchange = self.current = exchange
            # What uvicorn's protocol looks at of a cycle, the exchange has.
            protocol.cycle = exchange
        else:
            self._passed_on = True
            protocol.pass_on(self._url, self._headers, scope, self._expects_continue)

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.take_body(body)
        else:
            self.protocol.on_body(body)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.start()
        else:
            self.protocol.on_message_complete()

    # The connection's.

    def response_complete(self) -> None:
        """A direct answer is complete; what was pipelined behind it goes uvicorn's way."""
        protocol: Any = self.protocol
        if protocol.pipeline:
            protocol.on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.rest()

    def rest(self) -> None:
        """Nothing is asked for: close the connection when nothing more comes within its keep-alive time."""
        self._is_idle = True
        self._idle_since = self._timers.time()
        if self._idle_timer is None:
            self._idle_timer = self._timers.call_later(self.protocol.timeout_keep_alive, self._check_idle)

    def lost(self) -> None:
        """The connection was lost."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self.current is not None:
            self.current.lost()
        self._exchange = None

    def _check_idle(self) -> None:
        self._idle_timer = None
        if not self._is_idle:
            return
        due = self._idle_since + self.protocol.timeout_keep_alive
        if self._timers.time() >= due:
            self.protocol.timeout_keep_alive_handler()
        else:
            self._idle_timer = self._timers.call_at(due, self._check_idle)

    def _scope(self) -> dict[str, Any]:
        """Return the request's ASGI scope, as far as the way that it goes does not matter."""
        scope = self._template.copy()
        scope["headers"] = self._headers
        scope["state"] = self.protocol.app_state.copy()
        return scope

    def _direct(self, scope: dict[str, Any]) -> DirectExchange | None:
        """Return the exchange for the request; None where it goes uvicorn's way."""
        app = self._app
        if app is None or self._expects_continue or app.user_middleware:
            return None
        parser: Any = self.protocol.parser
        keep_alive: bool = parser.should_keep_alive()
        # Without a Connection field only HTTP/1.1 is kept alive, and nothing is upgraded (RFC 9112 §9.3, RFC 9110 §7.8).
        is_plain = keep_alive and not self._has_connection_field
        if not is_plain and (parser.get_http_version() != "1.1" or parser.should_upgrade()):
            return None
        raw_path, _, query = self._url.partition(b"?")
        if b"%" in raw_path or b"#" in query or not raw_path.isascii():
            return None
        method: str = parser.get_method().decode("ascii")
        path = raw_path.decode("ascii")
        found = endpoint_of(app.express, method, path)
        if found is None:
            return None
        scope["method"] = method
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        return DirectExchange(self, app, found[0], found[1], scope, keep_alive) if app.admits_now(scope) else None
