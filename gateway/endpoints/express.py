"""The way of streams and calls around FastAPI's router: a request for one of them is seen by its path and answered.

FastAPI's middleware, routing and dependency solving cost more than all the rest of a short stream. The endpoints
are the same functions, and stay registered with FastAPI: they are documented there, and take that way as soon as
the app has a middleware, which would otherwise not see them. Our own server (direct.py) asks `find` and `respond`
even ahead of ASGI.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.endpoints.problem import respond
from gateway.endpoints.requests import read_body
from gateway.telemetry.tally import OTHER, ResponseTally

PREFIX = "/v1/tools/"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers `/v1/tools/{tool}/<action>`: the methods it takes, and `answer(request, tool, body)`, which never waits.

    `answer` raises what is wrong with the request; `body_limit_bytes` bounds what is read for it. `route` is that path's template.
    """

    answer: Callable[[Request, str, bytes], Response]
    methods: frozenset[str]
    body_limit_bytes: int
    route: str = OTHER

    async def __call__(self, request: Request, tool: str) -> Response:
        """Answer as a route of FastAPI's."""
        return self.answer(request, tool, await read_body(request, limit_bytes=self.body_limit_bytes))


class ExpressApp(FastAPI):
    """FastAPI whose `/v1/tools/{tool}/<action>` routes are answered ahead of its router. `express`: action to endpoint.

    `responses` counts the responses of all routes; None: nobody does.
    """

    express: Mapping[str, Endpoint] = {}
    responses: ResponseTally | None = None
    # What an endpoint's exception becomes; the same as for all other routes.
    on_error: Callable[[Request, Exception], Response] = staticmethod(respond)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif not scope["root_path"] and (found := self.find(scope["method"], scope["path"])) is not None:
            endpoint, tool = found
            send = self._counted(send, lambda: endpoint.route)
            request = Request(scope, receive)
            try:
                response = await endpoint(request, tool)
            except Exception as error:
                response = self.on_error(request, error)
            await response(scope, receive, send)
        else:
            # FastAPI says in the scope which route it has found.
            await super().__call__(scope, receive, self._counted(send, lambda: getattr(scope.get("route"), "path", OTHER)))

    def find(self, method: str, path: str) -> tuple[Endpoint, str] | None:
        """Return the endpoint for a path and the tool that it names; None for what goes the usual way."""
        if not path.startswith(PREFIX) or self.user_middleware:
            return None
        tool, _, action = path[len(PREFIX) :].partition("/")
        endpoint = self.express.get(action)
        if endpoint is None or not tool or method not in endpoint.methods:
            return None
        return endpoint, tool

    def respond(self, endpoint: Endpoint, request: Request, tool: str, body: bytes) -> Response:
        """Return the response to a request whose body is there; an error is its problem document."""
        try:
            return endpoint.answer(request, tool, body)
        except Exception as error:
            return self.on_error(request, error)

    def counted(self, response: ASGIApp, endpoint: Endpoint) -> ASGIApp:
        """Return a response that is counted as one of this endpoint's when it begins."""
        if self.responses is None:
            return response

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await response(scope, receive, self._counted(send, lambda: endpoint.route))

        return answer

    def _counted(self, send: Send, route: Callable[[], str]) -> Send:
        """Return a `send` that counts the status line as one of this route, which is asked for only then."""
        responses = self.responses
        if responses is None:
            return send

        # No coroutine of its own: a stream sends each batch by this.
        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                responses.response_began(route(), message["status"])
            return send(message)

        return sending
