"""Sessions: `POST /v1/sessions`, `GET|DELETE /v1/sessions/{session}`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from gateway.caller import Caller, caller_of
from gateway.endpoints import arguments
from gateway.endpoints.contract import SESSION, SESSION_CREATE, SESSION_END
from gateway.endpoints.requests import RequestLimits, read_body
from gateway.endpoints.schemas import NewSession
from gateway.errors import FieldError, GatewayError
from gateway.runs.arguments import pointer
from gateway.runs.hub import Hub
from gateway.sessions import Session, Sessions, session_key


def describe(session: Session) -> dict[str, Any]:
    """Return a session as the API shows it; times are RFC 3339 in UTC."""
    return {
        "id": session.id,
        "created_at": _time(session.created_at),
        "last_used_at": _time(session.last_used_at),
        "metadata": dict(session.metadata),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def router(sessions: Sessions, limits: RequestLimits, hub: Hub) -> APIRouter:
    """Return the routes of this module. A session is known to all gateways of the hub's log."""
    routes = APIRouter(tags=["sessions"])

    async def create(request: Request) -> Response:
        body = await read_body(request, limit_bytes=limits.body_bytes)
        wanted = _wanted(arguments.from_body(body, request.headers.get("content-type"), depth_limit=limits.depth))
        caller = caller_of(request.scope)
        existed = wanted.id is not None and await _known(wanted.id, caller) is not None
        session = sessions.create(wanted.id, caller, wanted.metadata)
        if hub.others is not None:
            created_at, metadata = await hub.others.touch_session(session.key, session.metadata)
            session = Session(session.id, session.key, created_at, session.last_used_at, metadata)
        headers = {"Location": f"/v1/sessions/{session.id}"}
        return JSONResponse(describe(session), 200 if existed else 201, headers)

    async def state(request: Request, session: str) -> Response:
        return JSONResponse(describe(await _find(session, caller_of(request.scope))))

    async def end(request: Request, session: str) -> Response:
        caller = caller_of(request.scope)
        found = await _find(session, caller)
        sessions.end(session, caller)
        if hub.others is not None:
            await hub.others.end_session(found.key)
        return Response(status_code=204)

    async def _find(session_id: str, caller: Caller) -> Session:
        session = await _known(session_id, caller)
        if session is None:
            raise GatewayError("session-not-found", f"Session not found: {session_id[:128]}")
        return session

    async def _known(session_id: str, caller: Caller) -> Session | None:
        if hub.others is None:
            return sessions.get(session_id, caller)
        key = session_key(session_id, caller.id)
        found = await hub.others.find_session(key)
        if found is None:
            return None
        created_at, metadata = found
        local = sessions.get(session_id, caller)
        return Session(session_id, key, created_at, created_at if local is None else local.last_used_at, metadata)

    routes.add_api_route("/v1/sessions", create, methods=["POST"], **SESSION_CREATE)
    routes.add_api_route("/v1/sessions/{session}", state, methods=["GET"], **SESSION)
    routes.add_api_route("/v1/sessions/{session}", end, methods=["DELETE"], **SESSION_END)
    return routes


def _wanted(body: dict[str, Any]) -> NewSession:
    try:
        return NewSession.model_validate(body)
    except ValidationError as exc:
        errors = [FieldError(pointer(entry["loc"]), entry["msg"]) for entry in exc.errors()]
        raise GatewayError("invalid-body", "This is no session: see errors", errors=errors) from exc
