"""`POST /v1/tickets`: a page asks for a one-time ticket, for the URL of an EventSource or a WebSocket.

Source: gateway/auth/tickets.py says what a ticket is good for.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.auth.tickets import TTL_S, Tickets
from gateway.caller import caller_of
from gateway.endpoints import arguments
from gateway.endpoints.contract import TICKETS
from gateway.endpoints.requests import read_body
from gateway.errors import FieldError, GatewayError

BODY_LIMIT_BYTES = 64 * 1024
_PATH = re.compile(r"/v1/(ws|tools/[^/]+/(stream|ws)|runs/[^/]+/events)")
PATHS_TEXT = "/v1/tools/{tool}/stream, /v1/tools/{tool}/ws, /v1/runs/{run}/events, /v1/ws"


def router(tickets: Tickets) -> APIRouter:
    """Return the route of this module."""
    routes = APIRouter(tags=["authentication"])

    async def give(request: Request) -> Response:
        caller = caller_of(request.scope)
        body = await read_body(request, limit_bytes=BODY_LIMIT_BYTES)
        wanted = arguments.from_body(body, request.headers.get("content-type"), depth_limit=2).get("path")
        path, question, query = (wanted if isinstance(wanted, str) else "").partition("?")
        # As the path will come: what is encoded in it is decoded by then.
        if _PATH.fullmatch(decoded := unquote(path)) is None:
            raise GatewayError("invalid-body", "A ticket is for one path", errors=[FieldError("/path", f"allowed: {PATHS_TEXT}")])
        ticket = tickets.give(caller, decoded)
        url = f"{path}?{query}{'&' if query else ''}_ticket={quote(ticket)}" if question else f"{path}?_ticket={quote(ticket)}"
        document = {"ticket": ticket, "expires_in_s": int(TTL_S), "url": url}
        return JSONResponse(document, 201, headers={"Cache-Control": "no-store"})

    routes.add_api_route("/v1/tickets", give, methods=["POST"], **TICKETS)
    return routes
