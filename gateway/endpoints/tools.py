"""The catalogue: `GET /v1/tools`, `GET /v1/tools/{tool}`; the list shows what its caller may run."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.auth.scopes import tool_refused
from gateway.caller import caller_of
from gateway.endpoints.contract import TOOL, TOOLS
from gateway.workers.catalog import Catalog, Tool


def describe(tool: Tool) -> dict[str, Any]:
    """Return a tool as the catalogue shows it. `parameters` is null for a tool whose worker can't describe it."""
    uri = f"/v1/tools/{tool.name}"
    streams = tool.supports_streaming
    links = {"self": uri}
    if streams is not False:
        links["stream"] = f"{uri}/stream"
    if streams is not True:
        links["call"] = f"{uri}/call"
    return {
        "name": tool.name,
        "description": tool.description,
        "supports_streaming": streams,
        "parameters": tool.parameters,
        "pool": tool.pool,
        "links": links,
    }


def router(catalog: Catalog) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["tools"])

    async def tools(request: Request) -> Response:
        grants = caller_of(request.scope).grants
        return JSONResponse({"tools": [describe(tool) for tool in catalog.list() if grants.may_run(tool.name, tool.pool)]})

    async def one(request: Request, tool: str) -> Response:
        found = catalog.find(tool, request.query_params.get("_pool"))
        grants = caller_of(request.scope).grants
        if not grants.may_run(found.name, found.pool):
            raise tool_refused(grants, found.name, found.pool)
        return JSONResponse(describe(found))

    routes.add_api_route("/v1/tools", tools, methods=["GET"], **TOOLS)
    routes.add_api_route("/v1/tools/{tool}", one, methods=["GET"], **TOOL)
    return routes
