"""Runs in the background: `POST /v1/tools/{tool}/runs`, for tools that stream and for those that don't.

The answer is the run's state and where it is; `Prefer: wait=n` waits for its end first. Nobody reads, so the policy is `continue` where
the request names none.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.endpoints import collected, prefer
from gateway.endpoints.contract import RUN_START
from gateway.endpoints.head import RequestHead
from gateway.endpoints.negotiation import choose
from gateway.endpoints.options import RUN_OPTIONS
from gateway.endpoints.requests import CallReader, read_body
from gateway.endpoints.stream import RunResponses
from gateway.runs.policy import CONTINUE


def router(reader: CallReader, responses: RunResponses) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["runs"])

    async def start(request: Request, tool: str) -> Response:
        head = RequestHead(request.scope)
        choose(head.header(b"accept"), (collected.MEDIA_TYPE,))
        preferences = prefer.read(head.header(prefer.FIELD), wait_limit_s=responses.wait_limit_s)
        # A tool whose worker can't say which kind it is of is asked to stream: every Snakepit worker takes that.
        body = await read_body(request, limit_bytes=reader.limits.body_bytes)
        asked = reader.read(head, tool, body, streaming=reader.streams(tool, head), names=RUN_OPTIONS, on_disconnect=CONTINUE)
        return responses.begun(asked, preferences)

    routes.add_api_route("/v1/tools/{tool}/runs", start, methods=["POST"], **RUN_START)
    return routes
