"""The way of streams and calls around FastAPI's router: a request for one of them is seen by its path and answered.

FastAPI's middleware, routing and dependency solving cost more than all the rest of a short stream. The endpoints
are the same functions, and stay registered with FastAPI: they are documented there, and take that way as soon as
the app has a middleware, which would otherwise not see them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.endpoints.problem import respond

Endpoint = Callable[[Request, str], Awaitable[Response]]

PREFIX = "/v1/tools/"


class ExpressApp(FastAPI):
    """FastAPI whose `/v1/tools/{tool}/<action>` routes are answered ahead of its router.

    `express` maps an action to its endpoint and the methods it takes; anything else goes the usual way.
    """

    express: Mapping[str, tuple[Endpoint, frozenset[str]]] = {}
    # What an endpoint's exception becomes; the same as for all other routes.
    respond: Callable[[Request, Exception], Response] = staticmethod(respond)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.user_middleware and (found := self._find(scope)) is not None:
            endpoint, tool = found
            request = Request(scope, receive)
            try:
                response = await endpoint(request, tool)
            except Exception as error:
                response = self.respond(request, error)
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Endpoint, str] | None:
        """Return the endpoint for a path and the tool that it names."""
        path: str = scope["path"]
        if not path.startswith(PREFIX) or scope["root_path"]:
            return None
        tool, _, action = path[len(PREFIX) :].partition("/")
        endpoint, methods = self.express.get(action, (None, frozenset()))
        if endpoint is None or not tool or scope["method"] not in methods:
            return None
        return endpoint, tool
