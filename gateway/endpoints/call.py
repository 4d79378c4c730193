"""A tool's single result: `POST /v1/tools/{tool}/call` (Snakepit.execute/3)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.endpoints import collected
from gateway.endpoints.contract import CALL
from gateway.endpoints.endpoint import Endpoint
from gateway.endpoints.head import RequestHead
from gateway.endpoints.negotiation import choose
from gateway.endpoints.options import STARTING_OPTIONS
from gateway.endpoints.requests import CallReader
from gateway.endpoints.stream import RunResponses

METHODS = frozenset({"POST"})
ROUTE = "/v1/tools/{tool}/call"


def endpoint(reader: CallReader, responses: RunResponses) -> Endpoint:
    """Return what answers a request for a tool's result."""

    def call(request: RequestHead, tool: str, body: bytes) -> Response:
        media_type = choose(request.header(b"accept"), (collected.MEDIA_TYPE,))
        asked = reader.read(request, tool, body, streaming=False, names=STARTING_OPTIONS)
        return responses.opened(asked, media_type, asked.options.reader)

    return Endpoint(call, METHODS, reader.limits.body_bytes, ROUTE)


def router(answers: Endpoint) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["tools"])

    async def call(request: Request, tool: str) -> Response:
        return await answers(request, tool)

    routes.add_api_route(ROUTE, call, methods=["POST"], **CALL)
    return routes
