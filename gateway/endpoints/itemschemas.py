"""The OpenAPI 3.2 document: the 3.1 one, in which a stream's answers say what each event and each line is.

3.1 knows no streams: there an answer is one value. 3.2 has `itemSchema` for media types that are sequences, and FastAPI would
write it into a 3.1 document, which validators refuse; hence two documents. Served beside /openapi.json,
for the tools of the moment that its caller may run.
Source: OpenAPI 3.2 §4.14.3 (Sequential Media Types), §4.14.4 (Server-Sent Events: an event is an object of its fields).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.caller import caller_of
from gateway.codec import ndjson, sse
from gateway.endpoints.contract import reference
from gateway.workers.description import Tool

PATH = "/openapi-3.2.json"
_EVENT_ID = {"type": "string", "description": "`<run>.<number>`: what a reconnect sends as Last-Event-ID."}


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Return the 3.2 document that says what this 3.1 one does, and what its streams are made of. The latter is left as it is."""
    paths = {
        path: {method: _with_items(operation) for method, operation in operations.items()} for path, operations in document["paths"].items()
    }
    components = document["components"]
    schemas = components["schemas"] | {"ServerSentEvent": _server_sent_event(), "StreamLine": _stream_line()}
    return document | {"openapi": "3.2.0", "paths": paths, "components": components | {"schemas": schemas}}


def router(tools: Callable[[], Sequence[Tool]], build: Callable[[Sequence[Tool]], dict[str, Any]]) -> APIRouter:
    """Return the route of this module. `tools` returns those of the moment; `build` makes the 3.1 document for some of them."""
    routes = APIRouter(include_in_schema=False)

    async def served(request: Request) -> Response:
        grants = caller_of(request.scope).grants
        return JSONResponse(upgraded(build([tool for tool in tools() if grants.may_run(tool.name, tool.pool)])))

    routes.add_api_route(PATH, served, methods=["GET", "HEAD"])
    return routes


def _with_items(operation: dict[str, Any]) -> dict[str, Any]:
    responses = {
        status: response | {"content": {kind: _item(kind, media) for kind, media in response["content"].items()}}
        if "content" in response
        else response
        for status, response in operation["responses"].items()
    }
    return operation | {"responses": responses}


def _item(kind: str, media: dict[str, Any]) -> dict[str, Any]:
    if kind == sse.MEDIA_TYPE:
        return {"itemSchema": reference("ServerSentEvent")}
    if kind in ndjson.MEDIA_TYPES:
        return {"itemSchema": reference("StreamLine")}
    return media


def _server_sent_event() -> dict[str, Any]:
    """Return the schema of one event, as its fields: the data is text that holds JSON."""
    chunk = {
        "title": "A chunk",
        "type": "object",
        "required": ["id", "data"],
        # An event without a name is a chunk; EventSource calls it `message`.
        "properties": {"event": {"const": "message"}, "id": _EVENT_ID, "data": _data({})},
    }
    ends = [
        {
            "title": title,
            "type": "object",
            "required": ["event", "data"],
            "properties": {"event": {"const": name}, "data": _data(reference(model)), **more},
        }
        for name, model, title, more in (
            ("start", "StartEvent", "The first event", {"id": _EVENT_ID, "retry": {"type": "integer", "minimum": 0}}),
            ("status", "StatusEvent", "What the run does", {}),
            ("gap", "GapEvent", "Chunks that can't be delivered", {}),
            ("end", "EndEvent", "The last event", {"id": _EVENT_ID}),
        )
    ]
    return {"description": "One event. A comment `: hb` is a heartbeat.", "oneOf": [chunk, *ends]}


def _data(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _stream_line() -> dict[str, Any]:
    """Return the schema of one line."""
    chunk = {"type": "object", "required": ["seq", "data"], "properties": {"seq": {"type": "integer", "minimum": 1}, "data": {}}}
    others = [
        {"type": "object", "required": [name], "properties": {name: reference(model)}}
        for name, model in (("start", "StartEvent"), ("status", "StatusEvent"), ("gap", "GapEvent"), ("end", "EndEvent"))
    ]
    return {"description": "One line; an empty one is a heartbeat.", "oneOf": [chunk, *others]}
