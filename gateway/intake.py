"""A connection's requests as the HTTP parser tells of them, until it is known which way each is answered.

Made by guard.py for each connection; httptools calls it. It counts what guard.py bounds, and refuses a head that is too large.
Once a request's headers are there it is answered ahead of ASGI where it can be (direct.py); else uvicorn's protocol gets to
know all that it would know by itself, but for trailers, which nobody there wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from gateway.direct import DirectExchange
from gateway.endpoints.endpoint import endpoint_of
from gateway.endpoints.express import ExpressApp
from gateway.errors import GatewayError
from gateway.patience import Patience

if TYPE_CHECKING:
    from gateway.guard import GuardedHttp

# Requests that may wait behind the one that is being answered; nobody who pipelines sends more at once.
PIPELINE_LIMIT: Final = 32

# What of a request the parser is in.
NOTHING: Final = 0
HEAD: Final = 1
BODY: Final = 2


@final
class Intake:
    """The parser's callbacks, in the order in which they come: one request after another, maybe before the last is answered."""

    __slots__ = (
        "_app",
        "_exchange",
        "_expects_continue",
        "_fresh_bytes",
        "_has_connection_field",
        "_head_bytes_limit",
        "_head_fields_limit",
        "_headers",
        "_keep_alive_s",
        "_patience",
        "_template",
        "_url",
        "body_bytes",
        "current",
        "flow",
        "loop",
        "part",
        "protocol",
        "read_bytes",
        "server_state",
        "since",
        "trailers",
        "transport",
    )

    def __init__(self, protocol: GuardedHttp, patience: Patience, extensions: dict[str, Any]) -> None:
        """`extensions` are those of the ASGI scopes of all requests on this connection."""
        app: Any = protocol.app
        limits = protocol.limits
        # None: another app, whose requests all go uvicorn's way.
        self._app: ExpressApp | None = app if isinstance(app, ExpressApp) else None
        self.protocol = protocol
        self.transport: Any = protocol.transport
        self.flow: Any = protocol.flow
        self.loop: Any = protocol.loop
        self.server_state: Any = protocol.server_state
        self._patience = patience
        self._head_bytes_limit: int = limits.head_bytes
        self._head_fields_limit: int = limits.head_fields
        self._keep_alive_s: float = limits.keep_alive_timeout_s
        self._template: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": protocol.server,
            "client": protocol.client,
            "scheme": protocol.scheme,
            "root_path": protocol.root_path,
            "extensions": extensions,
        }
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects_continue = False
        self._has_connection_field = False
        # The request whose parts come, where it is answered directly; and the one that is being answered so.
        self._exchange: DirectExchange | None = None
        self.current: DirectExchange | None = None
        # The part that the parser is in, and since when it, or a request, is waited for; None: since the data that is being read.
        self.part = NOTHING
        self.since: float | None = None
        # What was read of the head, or for the body; of the body itself; how many trailers.
        self.read_bytes = 0
        self.body_bytes = 0
        self.trailers = 0
        # The data that is being read, where all of it may belong to the request that begins in it.
        self._fresh_bytes = 0

    def reading(self, size_bytes: int) -> None:
        """So much data is given to the parser next."""
        if self.part == NOTHING:
            self._fresh_bytes = size_bytes
        else:
            self._fresh_bytes = 0
            self.read_bytes += size_bytes

    # The parser's.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._expects_continue = self._has_connection_field = False
        self._exchange = None
        self.part = HEAD
        self.read_bytes, self._fresh_bytes = self._fresh_bytes, 0
        if self.protocol.cycle is not None:
            self.since = None

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.part == BODY:
            self.trailers += 1
            return
        name = name.lower()
        if name == b"connection":
            self._has_connection_field = True
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, or have the request answered one way or the other.

        Raises:
            GatewayError: it is refused; the parser stops, and guard.py hears of it.
        """
        protocol: Any = self.protocol
        limit_bytes, limit_fields = self._head_bytes_limit, self._head_fields_limit
        if len(self._headers) > limit_fields or (self.read_bytes > limit_bytes and self._head_size() > limit_bytes):
            raise head_too_large(limit_bytes, limit_fields)
        if protocol.pipeline and len(protocol.pipeline) >= PIPELINE_LIMIT:
            raise GatewayError("invalid-request", f"More than {PIPELINE_LIMIT} requests are waiting for their answers")
        self.part = BODY
        self.since = None
        self.read_bytes = self.body_bytes = self.trailers = 0
        scope = self._scope()
        cycle = protocol.cycle
        if (cycle is None or cycle.response_complete) and (exchange := self._direct(scope)) is not None:
            self._exchange = self.current = exchange
            # What uvicorn's protocol looks at of a cycle, the exchange has.
            protocol.cycle = exchange
        else:
            protocol.pass_on(self._url, self._headers, scope, self._expects_continue)
        if self.server_state.leaving and protocol.cycle is not None:
            protocol.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.take_body(body)
        else:
            self.protocol.on_body(body)

    def on_message_complete(self) -> None:
        self.part = NOTHING
        exchange = self._exchange
        if exchange is not None and not exchange.response_complete:
            exchange.start()
        else:
            self.protocol.on_message_complete()

    # The connection's.

    def answered(self) -> None:
        """A direct answer is complete; what was pipelined behind it goes uvicorn's way."""
        protocol: Any = self.protocol
        if protocol.pipeline or self.part != NOTHING:
            protocol.on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.rest()

    def rest(self) -> None:
        """Nothing is asked for, and nothing is being answered: have a look when the connection has kept alive for its time."""
        self.since = now = self._patience.time()
        self._patience.by(now + self._keep_alive_s)

    def lost(self) -> None:
        """The connection was lost."""
        if self.current is not None:
            self.current.lost()
        self._exchange = None

    def _head_size(self) -> int:
        """How many bytes the head has, nearly: without the version, and with the usual white space."""
        return len(self._url) + sum([len(name) + len(value) + 4 for name, value in self._headers])

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


def head_too_large(limit_bytes: int, limit_fields: int) -> GatewayError:
    """Return the error for a head over its bounds."""
    return GatewayError("head-too-large", f"The head of a request may have {limit_bytes} bytes and {limit_fields} fields")
