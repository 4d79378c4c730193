"""What answers `/v1/tools/{tool}/<action>` and `/v1/rpc/{service}/{method}`, and how it is found by a path.

Made by stream.py, call.py and rpc.py, asked for by express.py under ASGI and by direct.py ahead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from fastapi import Request
from starlette.responses import Response

from gateway.endpoints.head import RequestHead
from gateway.endpoints.requests import read_body
from gateway.telemetry.tally import OTHER

PREFIX: Final = "/v1/tools/"
RPC_PREFIX: Final = "/v1/rpc/"
# The name under which the endpoint for all methods of gRPC services stands among those for tools' actions.
RPC: Final = "rpc/"


@final
class Endpoint:
    """The methods that it takes, and `answer(head, tool, body)`, which never waits; a method of a service is named by its full name.

    `answer` raises what is wrong with the request; `body_limit_bytes` bounds what is read for it. `route` is that path's template.
    """

    __slots__ = ("answer", "body_limit_bytes", "methods", "route")

    def __init__(
        self, answer: Callable[[RequestHead, str, bytes], Response], methods: frozenset[str], body_limit_bytes: int, route: str = OTHER
    ) -> None:
        self.answer = answer
        self.methods = methods
        self.body_limit_bytes = body_limit_bytes
        self.route = route

    async def __call__(self, request: Request, tool: str) -> Response:
        """Answer as a route of FastAPI's."""
        body = await read_body(request, limit_bytes=self.body_limit_bytes)
        return self.answer(RequestHead(request.scope), tool, body)


def endpoint_of(endpoints: Mapping[str, Endpoint], method: str, path: str) -> tuple[Endpoint, str] | None:
    """Return the endpoint for a path, by its action, and the tool that the path names; None for any other path or method."""
    if not path.startswith(PREFIX):
        return _rpc_of(endpoints, method, path)
    tool, _, action = path[len(PREFIX) :].partition("/")
    endpoint = endpoints.get(action)
    if endpoint is None or not tool or method not in endpoint.methods:
        return None
    return endpoint, tool


def _rpc_of(endpoints: Mapping[str, Endpoint], method: str, path: str) -> tuple[Endpoint, str] | None:
    if not path.startswith(RPC_PREFIX):
        return None
    name = path[len(RPC_PREFIX) :]
    endpoint = endpoints.get(RPC)
    if endpoint is None or method not in endpoint.methods or name.count("/") != 1 or name.startswith("/") or name.endswith("/"):
        return None
    return endpoint, name
