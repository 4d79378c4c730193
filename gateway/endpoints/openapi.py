"""The OpenAPI 3.1 document: the routes, the schemas of events and problems, and a path for each tool.

Made from the catalogue as it is when asked for, so it names the tools that run now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse, Response

from gateway import __version__
from gateway.caller import caller_of
from gateway.endpoints import contract, parameters, schemas
from gateway.endpoints.authentication import OPEN_FOLDERS, OPEN_PATHS
from gateway.endpoints.cookie import NAME, SECURE_NAME
from gateway.endpoints.rpccontract import RpcDocument
from gateway.services.routes import Route
from gateway.services.tool import RpcTool
from gateway.workers.catalog import Tool

DESCRIPTION = (
    "Python functions that yield, as Server-Sent Events, WebSocket messages and JSON lines. "
    "WebSocket: `GET /v1/ws` (subprotocol `snakepit.gateway.v1`) and `GET /v1/tools/{tool}/ws`."
)


def build(app: FastAPI, tools: Sequence[Tool], routes: Sequence[tuple[RpcTool, Route]] = ()) -> dict[str, Any]:
    """Return the document for the app's routes and these tools; `routes` are those that methods have by google.api.http."""
    document = get_openapi(
        title="Snakepit Gateway", version=__version__, openapi_version="3.1.0", description=DESCRIPTION, routes=app.routes
    )
    _, models = models_json_schema([(model, "serialization") for model in schemas.MODELS], ref_template="#/components/schemas/{model}")
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(models["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    for path in document["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                # FastAPI's own shape of it; ours is a problem document.
                operation["responses"]["422"] = contract.problems(422)["422"]
    rpcs = RpcDocument(document)
    for tool in tools:
        if isinstance(tool, RpcTool):
            rpcs.add(tool)
        else:
            document["paths"].update(_paths(tool))
    listed = {id(tool) for tool in tools}
    for number, (tool, route) in enumerate(routes):
        if id(tool) in listed:
            rpcs.add_route(tool, route, number)
    return document


def build_secured(app: FastAPI, tools: Sequence[Tool], routes: Sequence[tuple[RpcTool, Route]] = ()) -> dict[str, Any]:
    """Return the document where callers have to say who they are."""
    return secured(build(app, tools, routes))


def install(app: FastAPI, tools: Callable[[], Sequence[Tool]], routes: Callable[[], Sequence[tuple[RpcTool, Route]]]) -> None:
    """Let the app answer /openapi.json with the document for the tools of the moment."""
    app.openapi = lambda: build(app, tools(), routes())  # type: ignore[method-assign]


def install_secured(app: FastAPI, tools: Callable[[], Sequence[Tool]], routes: Callable[[], Sequence[tuple[RpcTool, Route]]]) -> None:
    """Let the app answer /openapi.json with the document for the tools that its caller may run; it says how one authenticates."""
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", None) != app.openapi_url]

    async def document(request: Request) -> Response:
        grants = caller_of(request.scope).grants
        return JSONResponse(build_secured(app, [tool for tool in tools() if grants.may_run(tool.name, tool.pool)], routes()))

    app.add_api_route("/openapi.json", document, methods=["GET"], include_in_schema=False)


def secured(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the ways to authenticate, and what every route answers to those who haven't."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT of the identity provider."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": SECURE_NAME, "description": f"Set by /v1/signin; {NAME} without HTTPS."},
        "ticket": {"type": "apiKey", "in": "query", "name": "_ticket", "description": "From /v1/tickets; for that path, once."},
    }
    document["security"] = [{"bearer": []}, {"cookie": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
                operation["security"] = []
                continue
            if method == "get" and (path.endswith(("/stream", "/events")) or path.startswith("/v1/rpc/")):
                operation["security"] = [*document["security"], {"ticket": []}]
            operation["responses"] = {**contract.problems(401, 403), **operation["responses"]}
    return document


# References of one tool's schema: what they stand for is written out at each.
_WRITTEN_OUT_LIMIT = 1000


def _paths(tool: Tool) -> dict[str, Any]:
    """Return the paths of one tool."""
    schema = tool.parameters or {"type": "object", "additionalProperties": True}
    body = contract.arguments_body(portable(schema))
    common = {"tags": [f"tool: {tool.name}"], "description": tool.description}
    paths: dict[str, Any] = {}
    if tool.supports_streaming is not False:
        options = [*parameters.OPTION_PARAMETERS, parameters.RESUME_PARAMETER]
        paths[f"/v1/tools/{tool.name}/stream"] = {
            "get": {
                **common,
                "summary": f"Stream {tool.name} (EventSource)",
                "operationId": f"stream_{tool.name}_get",
                "parameters": [*_query_parameters(tool), *options, parameters.PREFER_ASYNC_PARAMETER],
                "responses": contract.stream_answers(),
            },
            "post": {
                **common,
                "summary": f"Stream {tool.name}",
                "operationId": f"stream_{tool.name}_post",
                "parameters": [*options, parameters.IDEMPOTENCY_PARAMETER, parameters.PREFER_ASYNC_PARAMETER],
                "requestBody": body,
                "responses": contract.stream_answers(),
            },
        }
    if tool.supports_streaming is not True:
        paths[f"/v1/tools/{tool.name}/call"] = {
            "post": {
                **common,
                "summary": f"Call {tool.name}",
                "operationId": f"call_{tool.name}",
                "parameters": [*parameters.STARTING_PARAMETERS, parameters.IDEMPOTENCY_PARAMETER],
                "requestBody": body,
                "responses": contract.CALL["openapi_extra"]["responses"],
            }
        }
    return paths


def _query_parameters(tool: Tool) -> list[dict[str, Any]]:
    schema = portable(tool.parameters or {})
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": field.get("description", ""),
            "schema": {key: value for key, value in field.items() if key != "description"},
        }
        for name, field in schema.get("properties", {}).items()
    ]


def portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a tool's schema with its `$defs` written out in place, since references there are relative to its own root."""
    definitions = schema.get("$defs", {})
    left = _WRITTEN_OUT_LIMIT

    def resolve(value: Any, depth: int = 0) -> Any:
        if isinstance(value, list):
            return [resolve(item, depth) for item in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        if "$ref" in value and name in definitions:
            # A type that contains itself ends as "any" after a few levels, and so do many that contain many.
            nonlocal left
            left -= 1
            return resolve(definitions[name], depth + 1) if depth < 4 and left > 0 else {}
        return {key: resolve(item, depth) for key, item in value.items() if key != "$defs"}

    resolved: dict[str, Any] = resolve(schema)
    return resolved
