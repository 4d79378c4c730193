"""One request under ASGI as an operator sees it: its id in the response's headers, its status counted, its line in the access log.

`Visit` stands in for ASGI's `send`, for HTTP and for WebSockets. direct.py, which has no `send`, asks the AccessLog itself. A line says
the path and never the query, which may hold arguments, tickets and tokens; nor any header but the request's id.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

import structlog
from starlette.types import Message, Scope, Send

from gateway.caller import ANONYMOUS, caller_of
from gateway.correlation import correlation_of
from gateway.endpoints.exposure import ANSWER_HEADERS
from gateway.telemetry.tally import OTHER, ResponseTally

PATH_LIMIT = 200
# A client that left before it was answered: nginx's number for it.
LEFT = 499
_ARRIVED_KEY = "gateway.arrived"

_log = structlog.get_logger("gateway.access")


class AccessLog:
    """Writes a line on each request when its response is over."""

    def arrived(self, scope: Scope) -> None:
        """Note when a request came; what answers it may change on the way."""
        scope.setdefault(_ARRIVED_KEY, time.monotonic())

    def over(self, scope: Scope, *, route: str, status: int, size_bytes: int | None) -> None:
        """Write the line. `size_bytes`: the body's; None for a WebSocket."""
        correlation, caller = correlation_of(scope), caller_of(scope)
        line: dict[str, Any] = {
            "method": scope.get("method", "WEBSOCKET"),
            "route": route,
            "path": scope["path"][:PATH_LIMIT],
            "status": status,
            "duration_ms": round((time.monotonic() - scope[_ARRIVED_KEY]) * 1000, 1),
        }
        if size_bytes is not None:
            line["bytes"] = size_bytes
        if caller != ANONYMOUS:
            line["caller"] = caller.id
        if correlation.trace_id is not None:
            line["trace_id"] = correlation.trace_id
        # In a request's task it is bound to all lines; a directly answered one has no task.
        line["request_id"] = correlation.request_id
        _log.info("request", **line)


class Visit:
    """A `send` that knows what was sent. `route` None: FastAPI's, which it says in the scope once it has found it."""

    def __init__(
        self, scope: Scope, send: Send, responses: ResponseTally | None, access: AccessLog | None, route: str | None = None
    ) -> None:
        self.route = route
        self._scope = scope
        self._send = send
        self._responses = responses
        self._access = access
        self._status = LEFT
        self._size_bytes = 0
        if access is not None:
            access.arrived(scope)

    # No coroutine of its own: a stream sends each batch by this.
    def __call__(self, message: Message) -> Awaitable[None]:
        kind = message["type"]
        if kind == "http.response.body":
            if self._access is not None:
                self._size_bytes += len(message.get("body", b""))
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self._begin(message, message["status"])
            if self._responses is not None and kind == "http.response.start":
                self._responses.response_began(self._found_route(), message["status"])
        elif kind == "websocket.accept":
            self._begin(message, 101)
        elif kind == "websocket.close" and self._status == LEFT:
            self._status = 403
        return self._send(message)

    def end(self) -> None:
        """The response is over, or will never be."""
        if self._access is not None:
            size_bytes = self._size_bytes if self._scope["type"] == "http" else None
            self._access.over(self._scope, route=self._found_route(), status=self._status, size_bytes=size_bytes)

    def _begin(self, message: Message, status: int) -> None:
        self._status = status
        request_id = correlation_of(self._scope).request_id.encode("ascii")
        # What every answer over HTTP has to say, where something has to be said.
        more = self._scope.get(ANSWER_HEADERS, ()) if self._scope["type"] == "http" else ()
        message["headers"] = [*message.get("headers", ()), *more, (b"x-request-id", request_id)]

    def _found_route(self) -> str:
        if self.route is not None:
            return self.route
        found: str = getattr(self._scope.get("route"), "path", OTHER)
        return found
