"""`GET /metrics`: a scrape, as text. Not there with `[server] metrics = false`.

With authentication it needs the scope `metrics`.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.auth.scopes import scope_missing
from gateway.caller import caller_of
from gateway.endpoints.contract import METRICS
from gateway.telemetry.metrics import Metrics


def router(metrics: Metrics) -> APIRouter:
    """Return the route of this module."""
    routes = APIRouter(tags=["operations"])

    async def scrape(request: Request) -> Response:
        grants = caller_of(request.scope).grants
        if not (grants.metrics or grants.admin):
            raise scope_missing("metrics")
        body, media_type = await metrics.scrape(request.headers.get("accept"))
        return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store", "Vary": "Accept"})

    routes.add_api_route("/metrics", scrape, methods=["GET"], **METRICS)
    return routes
