"""`POST /v1/signin` and `/v1/signout`: a page trades its user's key or token for a session cookie, and gives it back.

For pages of ours or an allowed origin alone, as the cookie itself is; both routes are open, since they check by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.auth.passes import Passes
from gateway.auth.scopes import words_of
from gateway.caller import Caller
from gateway.endpoints import arguments
from gateway.endpoints.contract import SIGN_IN, SIGN_OUT
from gateway.endpoints.cookie import SessionCookie
from gateway.endpoints.credentials import read_credentials
from gateway.endpoints.requests import read_body
from gateway.errors import FieldError, GatewayError

BODY_LIMIT_BYTES = 32 * 1024


def router(check: Callable[[str], Awaitable[Caller]], sessions: Passes, cookie: SessionCookie, *, ttl_s: float) -> APIRouter:
    """Return the routes of this module. `check` returns who comes with a credential; a session lives for `ttl_s` at most."""
    routes = APIRouter(tags=["authentication"])

    async def sign_in(request: Request) -> Response:
        cookie.check(request.scope)
        body = await read_body(request, limit_bytes=BODY_LIMIT_BYTES)
        caller = await check(_credential(request, body))
        expires_at = time.time() + ttl_s
        if caller.expires_at is not None:
            expires_at = min(expires_at, caller.expires_at)
        document = {
            "caller": caller.id,
            "scopes": words_of(caller.grants),
            "expires_at": datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        response = JSONResponse(document, headers={"Cache-Control": "no-store"})
        session = sessions.write(caller, {}, expires_at)
        cookie.put(response, request.scope, session, max_age_s=max(0, int(expires_at - time.time())))
        return response

    async def sign_out(request: Request) -> Response:
        cookie.check(request.scope)
        response = Response(status_code=204)
        cookie.put(response, request.scope, "", max_age_s=0)
        return response

    routes.add_api_route("/v1/signin", sign_in, methods=["POST"], **SIGN_IN)
    routes.add_api_route("/v1/signout", sign_out, methods=["POST"], **SIGN_OUT)
    return routes


def _credential(request: Request, body: bytes) -> str:
    """Return the key or token that somebody signs in with: the Authorization header's, else the body's `token`."""
    bearer = read_credentials(request.scope).bearer
    if bearer is not None:
        return bearer
    token = arguments.from_body(body, request.headers.get("content-type"), depth_limit=2).get("token")
    if not isinstance(token, str):
        raise GatewayError("invalid-body", "Sign in with a `token`: a key or a JWT", errors=[FieldError("/token", "is required, a text")])
    return token
