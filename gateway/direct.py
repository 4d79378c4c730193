"""A request that our server answers without ASGI: an Exchange (endpoints/exchange.py) on uvicorn's HTTP/1.1 connection.

Made by server.py's protocol for what ExpressApp.find knows. ASGI's scope, cycle and task, and an await for each part
that is sent, cost more than the rest of a short stream. A response that isn't a StreamedResponse is handed to
uvicorn as any other: only streams are worth a way of their own. Standard: RFC 9112 (§7.1 for the chunked coding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from gateway.correlation import correlation_of
from gateway.endpoints.exchange import Headers
from gateway.endpoints.exposure import ANSWER_HEADERS
from gateway.endpoints.express import Endpoint, ExpressApp
from gateway.endpoints.problem import problem_response
from gateway.endpoints.requests import body_too_large, is_declared_larger
from gateway.endpoints.response import RunStream
from gateway.endpoints.visit import LEFT

if TYPE_CHECKING:
    from gateway.server import LinkedHttp

# From this size on, three buffers in one system call are cheaper than one copy.
JOIN_LIMIT_BYTES = 16 * 1024

_STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n"


class _NoEvent:
    """Stands in for the event by which uvicorn wakes a request's task: there is none."""

    def set(self) -> None:
        pass


class Fields:
    """A request's header fields, made for looking a few of them up; of a repeated one the first counts."""

    __slots__ = ("_values",)

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        # ASGI's names are in lower case.
        self._values = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values


class DirectRequest(Request):
    """A request whose headers are looked up in a dict; Starlette goes through the list for each."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._fields = Fields(scope["headers"])

    @property
    def headers(self) -> Any:
        return self._fields


class DirectExchange:
    """One request, from its headers to the end of its response. Also what uvicorn's protocol looks at of its own cycle."""

    # What uvicorn's protocol reads and writes of a RequestResponseCycle.
    message_event = _NoEvent()

    __slots__ = (
        "_app",
        "_body",
        "_endpoint",
        "_head",
        "_protocol",
        "_room_bytes",
        "_scope",
        "_sent_bytes",
        "_tool",
        "_transport",
        "disconnected",
        "keep_alive",
        "more_body",
        "on_lost",
        "on_writable",
        "response_complete",
    )

    def __init__(self, protocol: LinkedHttp, app: ExpressApp, endpoint: Endpoint, tool: str) -> None:
        self.on_lost: Callable[[], None] = _nothing
        self.on_writable: Callable[[], None] = _nothing
        self.keep_alive: bool = protocol.parser.should_keep_alive()
        self.response_complete = False
        self.disconnected = False
        self.more_body = True
        # The beginning of the response, while it is held back.
        self._head = b""
        self._protocol = protocol
        self._transport = protocol.transport
        self._app = app
        self._endpoint = endpoint
        self._tool = tool
        scope: Any = protocol.scope
        self._scope = scope
        # The body's parts, and how much more may come; nothing is kept of a GET's.
        self._body: list[bytes] = []
        self._room_bytes = endpoint.body_limit_bytes
        # Of the response's body; -1 before it began.
        self._sent_bytes = -1
        if app.access is not None:
            app.access.arrived(scope)

    @classmethod
    def of(cls, protocol: LinkedHttp) -> DirectExchange | None:
        """Return the exchange for the request whose headers have come; None where it goes uvicorn's way."""
        app: Any = protocol.app
        parser = protocol.parser
        if not isinstance(app, ExpressApp) or protocol.expect_100_continue or parser.get_http_version() != "1.1" or parser.should_upgrade():
            return None
        raw_path, _, query = protocol.url.partition(b"?")
        if b"%" in raw_path or b"#" in query or not raw_path.isascii():
            return None
        method, path = parser.get_method().decode("ascii"), raw_path.decode("ascii")
        found = app.find(method, path)
        if found is None:
            return None
        scope: Any = protocol.scope
        scope["method"] = method
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        return cls(protocol, app, *found) if app.admits_now(scope) else None

    # The request, from the protocol.

    def take_body(self, part: bytes) -> None:
        """Take a part of the body; one that is too large is answered at once, and the rest is uvicorn's to skip."""
        if self._scope["method"] != "POST":
            return
        self._room_bytes -= len(part)
        # Most bodies come in one part: only for a second one is it worth a look at what was declared.
        if self._room_bytes < 0 or (len(self._body) == 1 and self._is_declared_too_large()):
            self._body.clear()
            error = body_too_large(self._endpoint.body_limit_bytes)
            self._answer(problem_response(error, instance=self._scope["path"]), more_body=True)
        else:
            self._body.append(part)

    def _is_declared_too_large(self) -> bool:
        declared = next((value for name, value in self._scope["headers"] if name == b"content-length"), b"")
        return is_declared_larger(declared.decode("latin-1"), self._endpoint.body_limit_bytes)

    @property
    def body_bytes(self) -> int:
        """What is held of the body, while it is being read."""
        return sum(map(len, self._body))

    def start(self) -> None:
        """Answer the request, which is complete."""
        self.more_body = False
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        response = self._app.respond(self._endpoint, DirectRequest(self._scope), self._tool, body)
        if isinstance(response, RunStream):
            response.answer(self)
        else:
            self._answer(response, more_body=False)

    def lost(self) -> None:
        """The connection was lost."""
        self._head = b""
        self._protocol.direct = None
        self._log()
        self.on_lost()
        self.let_go()

    # The response: Exchange.

    @property
    def writable(self) -> bool:
        return not self._protocol.flow.write_paused

    def begin(self, headers: Headers, body: bytes) -> None:
        more: Headers = self._scope.get(ANSWER_HEADERS, ())
        lines = [b"%b: %b\r\n" % header for header in (*self._protocol.server_state.default_headers, *headers, *more)]
        lines.append(b"x-request-id: %b\r\n" % correlation_of(self._scope).request_id.encode("ascii"))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self._sent_bytes = len(body)
        if (responses := self._app.responses) is not None:
            responses.response_began(self._endpoint.route, 200)
        # Held until the end of this turn of the loop: a short stream's end leaves with its beginning.
        self._head = b"".join((_STATUS_LINE, *lines, _CHUNKED % (len(body), body)))
        self._protocol.loop.call_soon(self._flush)

    def write(self, body: bytes) -> None:
        self._sent_bytes += len(body)
        if self._head:
            self._flush()
        if len(body) < JOIN_LIMIT_BYTES:
            self._transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        else:
            self._transport.writelines((b"%x\r\n" % len(body), body, b"\r\n"))

    def finish(self, body: bytes) -> None:
        head, self._head = self._head, b""
        self._sent_bytes += len(body)
        self._transport.write(b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body) if body else head + b"0\r\n\r\n")
        self._end()
        self._log()
        if not self.keep_alive:
            self._transport.close()
        self._protocol.on_response_complete()

    def hand_over(self, response: Response) -> None:
        self._answer(response, more_body=False)

    def cut(self, farewell: bytes) -> None:
        if self.writable:
            self.write(farewell)
        self.abort()

    def abort(self) -> None:
        self._head = b""
        self._end()
        self._log()
        self._transport.abort()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)

    def _answer(self, response: Response, *, more_body: bool) -> None:
        self._end()
        self._protocol.answer_with(self._app.counted(response, self._endpoint), self._scope, more_body=more_body)

    def _log(self) -> None:
        """Write the access log's line on a request that was answered here, or whose client did not wait for it."""
        if (access := self._app.access) is not None:
            began = self._sent_bytes >= 0
            access.over(self._scope, route=self._endpoint.route, status=200 if began else LEFT, size_bytes=max(self._sent_bytes, 0))

    def _end(self) -> None:
        """Nothing more is heard or said on this exchange."""
        self.response_complete = True
        self._protocol.direct = None
        self.let_go()

    def let_go(self) -> None:
        """Forget who answers: nothing more is to be told, and an exchange may be kept for longer than its response."""
        self.on_lost = self.on_writable = _nothing


def _nothing() -> None:
    """Stand in for a callback that nobody has set."""
