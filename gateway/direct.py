"""A request that our server answers without ASGI: an Exchange (endpoints/exchange.py) on uvicorn's HTTP/1.1 connection.

Made by a connection's Intake (intake.py) for the endpoints of ExpressApp. uvicorn's cycle, a task, and an await for each part
that is sent cost more than the rest of a short stream. A response that isn't an EventSource is handed to
uvicorn as any other: only streams are worth a way of their own. Standard: RFC 9112 (§7.1 for the chunked coding).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from fastapi import Request
from starlette.responses import Response

from gateway.correlation import correlation_of
from gateway.endpoints.endpoint import Endpoint
from gateway.endpoints.eventsource import EventSource
from gateway.endpoints.exchange import Exchange, Headers
from gateway.endpoints.exposure import ANSWER_HEADERS
from gateway.endpoints.express import ExpressApp
from gateway.endpoints.head import RequestHead
from gateway.endpoints.problem import problem_response
from gateway.endpoints.requests import body_too_large, is_declared_larger
from gateway.endpoints.visit import LEFT

if TYPE_CHECKING:
    from gateway.intake import Intake

# From this size on, three buffers in one system call are cheaper than one copy.
JOIN_LIMIT_BYTES: Final = 16 * 1024

_STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n"


class _NoEvent:
    """Stands in for the event by which uvicorn wakes a request's task: there is none."""

    def set(self) -> None:
        pass


@final
class DirectExchange(Exchange):
    """One request, from its headers to the end of its response. Also what uvicorn's protocol looks at of its own cycle."""

    # What uvicorn's protocol reads and writes of a RequestResponseCycle.
    message_event = _NoEvent()

    __slots__ = (
        "_app",
        "_body",
        "_endpoint",
        "_head",
        "_intake",
        "_room_bytes",
        "_scope",
        "_sent_bytes",
        "_tool",
        "_transport",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
    )

    def __init__(self, intake: Intake, app: ExpressApp, endpoint: Endpoint, tool: str, scope: dict[str, Any], keep_alive: bool) -> None:
        super().__init__()
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.more_body = True
        # The beginning of the response, while it is held back.
        self._head = b""
        self._intake = intake
        self._transport = intake.transport
        self._app = app
        self._endpoint = endpoint
        self._tool = tool
        self._scope = scope
        # The body's parts, and how much more may come; nothing is kept of a GET's.
        self._body: list[bytes] = []
        self._room_bytes = endpoint.body_limit_bytes
        # Of the response's body; -1 before it began.
        self._sent_bytes = -1
        if app.access is not None:
            app.access.arrived(scope)

    # The request, from the intake.

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
        try:
            response = self._endpoint.answer(RequestHead(self._scope), self._tool, body)
        except Exception as error:
            response = self._app.on_error(Request(self._scope), error)
        if isinstance(response, EventSource):
            response.stream.answer(self)
        else:
            self._answer(response, more_body=False)

    def lost(self) -> None:
        """The connection was lost."""
        self._head = b""
        self._intake.current = None
        self._log()
        self.on_lost()
        self.let_go()

    # The response: Exchange.

    @property
    def writable(self) -> bool:
        return not self._intake.flow.write_paused

    def begin(self, constant: Headers, headers: Headers, body: bytes) -> None:
        intake = self._intake
        parts = [_STATUS_LINE, _rendered(intake.server_state.default_headers), _rendered(constant), *map(_line, headers)]
        more: Headers = self._scope.get(ANSWER_HEADERS, ())
        if more:
            parts.append(_rendered(more))
        parts.append(b"x-request-id: %b\r\n" % correlation_of(self._scope).request_id.encode("ascii"))
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(_CHUNKED % (len(body), body))
        self._sent_bytes = len(body)
        if (responses := self._app.responses) is not None:
            responses.response_began(self._endpoint.route, 200)
        # Held until the end of this turn of the loop: a short stream's end leaves with its beginning.
        self._head = b"".join(parts)
        intake.loop.call_soon(self._flush)

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
        self._intake.answered()

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
        protocol: Any = self._intake.protocol
        protocol.answer_with(self._app.counted(response, self._endpoint), self._scope, more_body=more_body)

    def _log(self) -> None:
        """Write the access log's line on a request that was answered here, or whose client did not wait for it."""
        if (access := self._app.access) is not None:
            began = self._sent_bytes >= 0
            access.over(self._scope, route=self._endpoint.route, status=200 if began else LEFT, size_bytes=max(self._sent_bytes, 0))

    def _end(self) -> None:
        """Nothing more is heard or said on this exchange."""
        self.response_complete = True
        self._intake.current = None
        self.let_go()


# Headers that one response after another has in common, as they are written, by the object that holds them: the server's
# are another list each second, a media type's and an origin's are always the same.
_RENDERED_LIMIT = 16
_rendered_last: dict[int, tuple[Headers, bytes]] = {}


def _rendered(headers: Headers) -> bytes:
    """Return headers as they are written; those that are the same object as before at once."""
    known = _rendered_last.get(id(headers))
    # The entry holds the headers, so its id can't have become another object's.
    if known is not None:
        return known[1]
    if len(_rendered_last) >= _RENDERED_LIMIT:
        _rendered_last.clear()
    lines = b"".join(map(_line, headers))
    _rendered_last[id(headers)] = headers, lines
    return lines


def _line(header: tuple[bytes, bytes]) -> bytes:
    return header[0] + b": " + header[1] + b"\r\n"
