"""What gRPC services there are: `GET /v1/rpc`, and `GET /v1/rpc/{package.Service}` with the schemas of its messages.

Both show what their caller may run.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.auth.scopes import tool_refused
from gateway.caller import Caller, caller_of
from gateway.endpoints.rpc import is_gettable, socket_path
from gateway.endpoints.rpccontract import RPC_SERVICE, RPC_SERVICES
from gateway.errors import GatewayError
from gateway.services.tool import RpcTool
from gateway.workers.catalog import Catalog


def describe(tool: RpcTool) -> dict[str, Any]:
    """Return a method as the list shows it. `http` are its paths besides its own, by google.api.http."""
    method = tool.method
    uri = f"/v1/rpc/{tool.name}"
    return {
        "name": method.name,
        "kind": method.kind.value,
        "description": method.description,
        "deprecated": method.deprecated,
        "get": is_gettable(method) and not method.kind.client_streams,
        "request": method.request.full_name,
        "response": method.response.full_name,
        "http": [{"method": rule.method, "path": rule.template} for rule in method.http_rules],
        "links": {"call": uri, "socket": socket_path(tool.name)},
    }


def router(catalog: Catalog) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["gRPC services"])

    async def services(request: Request) -> Response:
        listed = [_service(name, tools) for name, tools in _services(catalog, caller_of(request.scope)).items()]
        return JSONResponse({"services": listed})

    async def one(request: Request, service: str) -> Response:
        caller = caller_of(request.scope)
        tools = _services(catalog, caller).get(service)
        if tools is None:
            raise _unknown(catalog, service, caller)
        document = _service(service, tools)
        for entry, tool in zip(document["methods"], tools, strict=True):
            entry |= {"request_schema": tool.method.input_schema, "response_schema": tool.method.output_schema}
        return JSONResponse(document)

    routes.add_api_route("/v1/rpc", services, methods=["GET"], **RPC_SERVICES)
    routes.add_api_route("/v1/rpc/{service}", one, methods=["GET"], **RPC_SERVICE)
    return routes


def _services(catalog: Catalog, caller: Caller) -> dict[str, list[RpcTool]]:
    """Return the methods that a caller may run, by their services."""
    found: dict[str, list[RpcTool]] = {}
    for tool in catalog.methods():
        if isinstance(tool, RpcTool) and caller.grants.may_run(tool.name, tool.pool):
            found.setdefault(tool.method.service, []).append(tool)
    return found


def _service(name: str, tools: list[RpcTool]) -> dict[str, Any]:
    service = tools[0].directory.services[name]
    return {
        "name": name,
        "pool": tools[0].pool,
        "description": service.description,
        "deprecated": service.deprecated,
        "links": {"self": f"/v1/rpc/{name}"},
        "methods": [describe(tool) for tool in tools],
    }


def _unknown(catalog: Catalog, service: str, caller: Caller) -> GatewayError:
    """Return why a service isn't there for this caller."""
    known = {tool.method.service: tool for tool in catalog.methods() if isinstance(tool, RpcTool)}
    if (tool := known.get(service)) is not None:
        return tool_refused(caller.grants, tool.name, tool.pool)
    try:
        # It says what there is, or that nobody knows yet.
        catalog.find(f"{service}/*")
    except GatewayError as error:
        return error
    raise AssertionError("no method has that name")
