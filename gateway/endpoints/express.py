"""The way of streams and calls around FastAPI's router: a request for one of them is seen by its path and answered.

FastAPI's middleware, routing and dependency solving cost more than all the rest of a short stream. The endpoints
are the same functions, and stay registered with FastAPI: they are documented there, and take that way as soon as
the app has a middleware, which would otherwise not see them. Our own server (direct.py) asks `find`
even ahead of ASGI. Whether a request may come in is asked here too, for all of them: there is no way around this app. What
the server shows to whom (exposure.py) comes first, then who the caller is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog
from fastapi import FastAPI, Request, WebSocket
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.caller import SCOPE_KEY, Caller
from gateway.correlation import correlation_of
from gateway.endpoints.endpoint import Endpoint, endpoint_of
from gateway.endpoints.exposure import Exposure
from gateway.endpoints.problem import problem_response, respond
from gateway.endpoints.visit import AccessLog, Visit
from gateway.errors import GatewayError
from gateway.telemetry.tally import OTHER, ResponseTally


class Admission(Protocol):
    """Who says whether a request may come in at all, and who its caller is; asked when its headers are there.

    It is asked about sockets as well, and may change the scope of what it admits: a credential in it is of no use any more.
    `admit_now` may be asked twice about one request, so it uses nothing up.
    """

    def admit_now(self, connection: HTTPConnection) -> Caller | None:
        """Return the caller; None where that can't be said without a wait: ask `admit` then.

        Raises:
            GatewayError: the request is refused.
        """

    async def admit(self, connection: HTTPConnection) -> Caller:
        """Return the caller.

        Raises:
            GatewayError: as `admit_now`.
        """


class ExpressApp(FastAPI):
    """FastAPI whose `/v1/tools/{tool}/<action>` routes are answered ahead of its router. `express`: action to endpoint.

    `exposure` and then `admission` are asked about every request, whatever its path; None: all come in, as ANONYMOUS. `responses`
    counts the responses of all routes, `access` writes a line on each; None: nobody does.
    """

    express: Mapping[str, Endpoint] = {}
    exposure: Exposure | None = None
    admission: Admission | None = None
    responses: ResponseTally | None = None
    access: AccessLog | None = None
    # What an endpoint's exception becomes; the same as for all other routes.
    on_error: Callable[[Request, Exception], Response] = staticmethod(respond)
    # What becomes of a socket that may not come in.
    on_socket_refused: Callable[[WebSocket, GatewayError], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await super().__call__(scope, receive, send)
            return
        visit = Visit(scope, send, self.responses, self.access)
        correlation = correlation_of(scope)
        names = {"request_id": correlation.request_id} | ({} if correlation.trace_id is None else {"trace_id": correlation.trace_id})
        # What this task logs meanwhile is about the request.
        with structlog.contextvars.bound_contextvars(**names):
            try:
                await self._answer(scope, receive, visit)
            finally:
                visit.end()

    async def _answer(self, scope: Scope, receive: Receive, visit: Visit) -> None:
        if scope["type"] == "websocket":
            if (error := await self._socket_refusal(scope)) is not None:
                await self.on_socket_refused(WebSocket(scope, receive, visit), error)
            else:
                await super().__call__(scope, receive, visit)
        elif (refusal := await self._refusal(scope)) is not None:
            visit.route = OTHER
            await refusal(scope, receive, visit)
        elif not scope["root_path"] and (found := self.find(scope["method"], scope["path"])) is not None:
            endpoint, tool = found
            visit.route = endpoint.route
            request = Request(scope, receive)
            try:
                response = await endpoint(request, tool)
            except Exception as error:
                response = self.on_error(request, error)
            await response(scope, receive, visit)
        else:
            await super().__call__(scope, receive, visit)

    async def _socket_refusal(self, scope: Scope) -> GatewayError | None:
        """Return why a socket may not come in; None for one that may, whose caller is in its scope then."""
        connection = HTTPConnection(scope)
        try:
            if self.exposure is not None:
                self.exposure.check(scope)
            if self.admission is None:
                return None
            scope[SCOPE_KEY] = self.admission.admit_now(connection) or await self.admission.admit(connection)
        except GatewayError as error:
            return error
        return None

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that comes no further; None to one that does, whose caller is in its scope then."""
        if self.exposure is not None:
            try:
                preflight = self.exposure.check(scope)
            except GatewayError as error:
                return problem_response(error, instance=scope["path"])
            if preflight is not None:
                return preflight
        if self.admission is None:
            return None
        request = Request(scope)
        try:
            scope[SCOPE_KEY] = self.admission.admit_now(request) or await self.admission.admit(request)
        except Exception as error:
            return self.on_error(request, error)
        return None

    def admits_now(self, scope: Scope) -> bool:
        """Return whether a request may come in, and its caller is in its scope; False: ask the ASGI way, which may wait or refuse."""
        try:
            # The methods that are answered here are none of a preflight's.
            if self.exposure is not None:
                self.exposure.check(scope)
            if self.admission is None:
                return True
            caller = self.admission.admit_now(HTTPConnection(scope))
        except GatewayError:
            return False
        if caller is not None:
            scope[SCOPE_KEY] = caller
        return caller is not None

    def find(self, method: str, path: str) -> tuple[Endpoint, str] | None:
        """Return the endpoint for a path and the tool that it names; None for what goes the usual way."""
        return None if self.user_middleware else endpoint_of(self.express, method, path)

    def counted(self, response: ASGIApp, endpoint: Endpoint) -> ASGIApp:
        """Return a response that is seen as one of this endpoint's: it carries what every answer has to, is counted and logged."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            visit = Visit(scope, send, self.responses, self.access, endpoint.route)
            try:
                await response(scope, receive, visit)
            finally:
                visit.end()

        return answer
