"""Is the process alive, can it serve, and what do the pools do: `/livez`, `/readyz`, `GET /v1/pools`.

Also `/problems/{type}`, so that the `type` of a problem document leads somewhere (RFC 9457 §3.1.1).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.caller import caller_of
from gateway.endpoints.contract import LIVEZ, POOLS, PROBLEM, READYZ
from gateway.errors import CODES, PROBLEMS, GatewayError
from gateway.runs.hub import Hub


def router(hub: Hub) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["operations"])

    async def livez() -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz() -> Response:
        reasons = {name: why for name, pool in hub.pools.items() if (why := pool.readiness())}
        if hub.leaving:
            return JSONResponse({"status": "draining", "open_runs": hub.open_runs}, 503)
        # One pool without a worker must not take the others' traffic away.
        status = "ready" if not reasons else "degraded" if len(reasons) < len(hub.pools) else "not ready"
        document: dict[str, Any] = {"status": status, "pools": {name: reasons.get(name, []) for name in hub.pools}}
        if hub.others is not None:
            document["runlog"] = "available" if hub.others.available else "unavailable"
            if not hub.others.available and status == "ready":
                # Runs that go on and their readers are served; new runs are refused until it is back.
                document["status"] = "degraded"
        if hub.memory.refuses:
            document["memory"] = "short"
            if status == "ready":
                document["status"] = "degraded"
        return JSONResponse(document, 503 if status == "not ready" else 200)

    async def pools(request: Request) -> Response:
        grants = caller_of(request.scope).grants
        return JSONResponse({"pools": [pool.snapshot() for pool in hub.pools.values() if grants.may_use(pool.name)]})

    async def problem(slug: str) -> Response:
        row = PROBLEMS.get(slug)
        if row is None:
            raise GatewayError("route-not-found", f"No problem type {slug[:60]!r}; known: {', '.join(PROBLEMS)}")
        code = CODES[row.code]
        status = row.http_status or code.http_status
        retryable = code.retryable if row.retryable is None else row.retryable
        document = {"type": f"/problems/{slug}", "title": row.title, "status": status, "code": row.code.name, "retryable": retryable}
        return JSONResponse(document)

    routes.add_api_route("/livez", livez, methods=["GET"], **LIVEZ)
    routes.add_api_route("/readyz", readyz, methods=["GET"], **READYZ)
    routes.add_api_route("/v1/pools", pools, methods=["GET"], **POOLS)
    routes.add_api_route("/problems/{slug}", problem, methods=["GET"], **PROBLEM)
    return routes
