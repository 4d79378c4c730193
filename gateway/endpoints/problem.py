"""Errors as problem documents (RFC 9457): for our own errors, for FastAPI's, and for what nobody expected."""

from __future__ import annotations

import math

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.codec import ratelimit
from gateway.correlation import correlation_of
from gateway.errors import FieldError, GatewayError, ToolFailed

MEDIA_TYPE = "application/problem+json"

_log = structlog.get_logger("gateway.endpoints")


class ProblemResponse(Response):
    """A problem document; the request's id, and its trace where the document names none, are added when it is sent."""

    media_type = MEDIA_TYPE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        correlation = correlation_of(scope)
        added = b',"request_id":%b' % orjson.dumps(correlation.request_id)
        if correlation.trace_id is not None and b'"trace_id":' not in bytes(self.body):
            added += b',"trace_id":"%b"' % correlation.trace_id.encode("ascii")
        self.body = b"%b%b}" % (bytes(self.body)[:-1], added)
        self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def problem_response(
    error: GatewayError, *, instance: str | None = None, trace_id: str | None = None, debug: bool = False
) -> ProblemResponse:
    """Return the response for an error. `trace_id` is that of the run that had it; `debug` adds a tool's traceback."""
    document = error.document(instance)
    if trace_id is not None:
        document["trace_id"] = trace_id
    if debug and isinstance(error, ToolFailed) and error.traceback:
        document["traceback"] = error.traceback
    headers = {"Cache-Control": "no-store", "Vary": "Accept", **ratelimit.fields(error.quotas)}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.problem in _CHALLENGES:
        headers["WWW-Authenticate"] = _challenge(error)
    return ProblemResponse(orjson.dumps(document), error.http_status, headers)


# RFC 6750 §3.1: what a Bearer challenge says of each; nothing where there was no credential.
_CHALLENGES = {
    "unauthenticated": "",
    "invalid-credential": "invalid_token",
    "auth-expired": "invalid_token",
    "credential-conflict": "invalid_request",
    "scope-missing": "insufficient_scope",
}


def _challenge(error: GatewayError) -> str:
    code, scope = _CHALLENGES[error.problem], error.extra.get("scope")
    parts = [f'error="{code}"'] * bool(code) + [f'scope="{scope}"'] * bool(scope)
    return ", ".join(['Bearer realm="snakepit-gateway"', *parts])


def respond(request: Request, error: Exception, *, debug: bool = False) -> Response:
    """Return the response for any exception out of a request; what nobody expected is logged and not told."""
    if isinstance(error, GatewayError):
        return problem_response(error, instance=request.url.path, debug=debug)
    if isinstance(error, HTTPException):
        problem = {400: "invalid-body", 404: "route-not-found", 405: "method-not-allowed"}.get(error.status_code, "internal")
        response = problem_response(GatewayError(problem, f"{request.method} {request.url.path[:200]}: {error.detail}"))
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
        return response
    if isinstance(error, RequestValidationError):
        errors = [FieldError("/" + "/".join(map(str, entry["loc"])), entry["msg"]) for entry in error.errors()]
        return problem_response(GatewayError("invalid-body", "The request does not fit: see errors", errors=errors))
    if isinstance(error, ClientDisconnect):
        # While it was still sending its body: nothing was started, and nobody reads this.
        return problem_response(GatewayError("cancelled", "The client left before its request was complete"))
    _log.error("unexpected error", path=request.url.path, request_id=correlation_of(request.scope).request_id, exc_info=error)
    return problem_response(GatewayError("internal", "Something went wrong here; the server's log says what"))


def install(app: FastAPI, *, debug: bool) -> None:
    """Make every error of the app's HTTP routes a problem document."""

    async def handle(request: Request, error: Exception) -> Response:
        return respond(request, error, debug=debug)

    for kind in (GatewayError, HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, handle)
