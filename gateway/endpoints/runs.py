"""Runs by their id: state, events, cancel. `DELETE` and an empty `POST …/cancel` (for navigator.sendBeacon) are the same."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.codec import documents
from gateway.endpoints.contract import CANCEL_DELETE, CANCEL_POST, RUN, RUN_EVENTS
from gateway.endpoints.negotiation import choose
from gateway.endpoints.stream import OFFERED, RunResponses
from gateway.errors import GatewayError
from gateway.runs.hub import Hub
from gateway.runs.policy import Cause
from gateway.runs.run import Run


def describe(run: Run) -> dict[str, Any]:
    """Return a run's state; `end` once it has ended."""
    uri = f"/v1/runs/{run.id}"
    document: dict[str, Any] = {
        "run": run.id,
        "tool": run.call.tool,
        "state": run.state,
        "session": run.call.session_id,
        "worker": run.worker_id,
        "chunks": run.log.next - 1,
        "links": {"self": uri, "events": f"{uri}/events", "cancel": f"{uri}/cancel"},
    }
    if run.ended is not None:
        document["end"] = documents.ended(run.ended, uri)
    return document


def router(hub: Hub, responses: RunResponses) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["runs"])

    def find(run_id: str) -> Run:
        run = hub.find(run_id)
        if run is None:
            raise GatewayError("run-not-found", f"No run {run_id[:40]!r} is known here (any more)")
        return run

    async def state(run: str) -> Response:
        return JSONResponse(describe(find(run)))

    async def events(request: Request, run: str) -> Response:
        media_type = choose(request.headers.get("accept"), OFFERED)
        last_event_id = request.headers.get("last-event-id")
        if last_event_id:
            return responses.resumed(last_event_id, media_type, of=run)
        return responses.response(find(run), media_type)

    async def cancel(run: str) -> Response:
        found = find(run)
        found.cancel(Cause.CLIENT)
        return JSONResponse(describe(found))

    routes.add_api_route("/v1/runs/{run}", state, methods=["GET"], **RUN)
    routes.add_api_route("/v1/runs/{run}/events", events, methods=["GET"], **RUN_EVENTS)
    routes.add_api_route("/v1/runs/{run}", cancel, methods=["DELETE"], **CANCEL_DELETE)
    routes.add_api_route("/v1/runs/{run}/cancel", cancel, methods=["POST"], **CANCEL_POST)
    return routes
