"""The AsyncAPI 3.0 document: the WebSockets, what may be said on them, in which direction, and by each tool.

Made from the catalogue as it is when asked for, of the schemas that the OpenAPI document has; methods of gRPC services are not listed,
since `/v1/rpc` does that with their schemas. The frames are those of codec/websocket.py;
a test holds live sockets against this document. Source: AsyncAPI 3.0, its WebSocket binding 0.1.0; docs of the protocol, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse, Response

from gateway import __version__
from gateway.caller import caller_of
from gateway.codec.websocket import CREDIT_LIMIT, ID_LIMIT, SUBPROTOCOL
from gateway.endpoints import schemas
from gateway.endpoints.attachment import MEMBERS as ATTACH_MEMBERS
from gateway.endpoints.contract import reference
from gateway.endpoints.openapi import portable
from gateway.endpoints.options import META_PREFIX
from gateway.endpoints.subprotocol import SUBSCRIBE_MEMBERS
from gateway.workers.description import Tool

PATH = "/asyncapi.json"
_CREDIT = {"type": "integer", "minimum": 1, "maximum": CREDIT_LIMIT}
_OPTION = {"type": ["string", "integer", "null"]}


def build(tools: Sequence[Tool]) -> dict[str, Any]:
    """Return the document for these tools."""
    _, models = models_json_schema([(model, "serialization") for model in schemas.MODELS], ref_template="#/components/schemas/{model}")
    streaming = [tool for tool in tools if tool.supports_streaming is not False]
    client, server, events = _client_frames(streaming), _server_frames(), _plain_events()
    asked, answered = _method_frames(client, _FROM_CALLER), _method_frames(server, _TO_CALLER)
    everything = client | server | events | asked | answered
    used = _closure(models["$defs"], [*everything.values()])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Snakepit Gateway",
            "version": __version__,
            "description": "Streams over WebSocket; `/openapi.json` has the same over HTTP. The tools are those of now.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "runs": {
                "address": "/v1/ws",
                "title": "Many runs on one socket",
                "description": f"Subprotocol `{SUBPROTOCOL}`. Text frames, one JSON object each. The client begins with `connection_init`; "
                f"a run's `id` is the client's name for it on this socket.",
                "messages": _references([*client, *server]),
                "bindings": {"ws": {"method": "GET", "headers": _subprotocol_header()}},
            },
            "tool": {
                "address": "/v1/tools/{tool}/ws",
                "title": "One run on a socket, without a subprotocol",
                "description": "The events of SSE as objects. Arguments are query parameters, as of `GET /v1/tools/{tool}/stream`.",
                "parameters": {"tool": {"description": "A streaming tool's name.", "enum": [tool.name for tool in streaming]}},
                "messages": _references(list(events)),
                "bindings": {"ws": {"method": "GET"}},
            },
            "method": {
                "address": "/v1/rpc/{service}/{method}/ws",
                "title": "One call of a gRPC service's method, of any kind, without a subprotocol",
                "description": "The frames of `/v1/ws` without an `id`. Each `send` is a request message, `end` the half-close; a method "
                "with one message is called by its one `send`. Closing the socket before the terminal frame cancels the call.",
                "parameters": {
                    "service": {"description": "A service's full name, of those that `GET /v1/rpc` lists."},
                    "method": {"description": "A method's own name."},
                },
                "messages": _references([*asked, *answered]),
                "bindings": {"ws": {"method": "GET"}},
            },
        },
        "operations": {
            # As the gateway has it: it receives what clients send.
            "receiveFrames": _operation("receive", "runs", client),
            "sendFrames": _operation("send", "runs", server),
            "sendEvents": _operation("send", "tool", events),
            "receiveCall": _operation("receive", "method", asked),
            "sendAnswers": _operation("send", "method", answered),
        },
        "components": {
            "messages": {name: {"name": name, "payload": payload} for name, payload in everything.items()},
            "schemas": used,
        },
    }


def router(tools: Callable[[], Sequence[Tool]]) -> APIRouter:
    """Return the route of this module. `tools` returns those of the moment; a caller is shown what it may run."""
    routes = APIRouter(include_in_schema=False)

    async def served(request: Request) -> Response:
        grants = caller_of(request.scope).grants
        return JSONResponse(build([tool for tool in tools() if grants.may_run(tool.name, tool.pool)]))

    routes.add_api_route(PATH, served, methods=["GET", "HEAD"])
    return routes


def _client_frames(tools: Sequence[Tool]) -> dict[str, Any]:
    """Return what a client may send, by message name."""
    attach = dict.fromkeys(ATTACH_MEMBERS, _OPTION) | {"credit": _CREDIT}
    subscribe = dict.fromkeys(SUBSCRIBE_MEMBERS, _OPTION) | {"credit": _CREDIT}
    any_tool = {
        "type": "object",
        "required": ["tool"],
        "properties": subscribe | {"tool": {"type": "string"}, "args": {}},
        "patternProperties": {f"^{META_PREFIX.removeprefix('_')}": {"type": "string"}},
        "additionalProperties": False,
        "oneOf": [{"properties": {"tool": {"const": tool.name}, "args": _arguments(tool)}} for tool in tools] + [_ANY_METHOD],
    }
    return {
        "connectionInit": _frame("connection_init", payload={"type": ["object", "null"]}, required=()),
        "clientPing": _frame("ping"),
        "clientPong": _frame("pong"),
        "subscribe": _frame("subscribe", id=_ID, payload=any_tool),
        "attach": _frame("attach", id=_ID, payload={"type": "object", "properties": attach, "additionalProperties": False}),
        "credit": _frame("credit", id=_ID, n=_CREDIT),
        "send": _frame("send", id=_ID, payload={}),
        "end": _frame("end", id=_ID),
        "leave": _frame("complete", id=_ID),
        "cancel": _frame("cancel", id=_ID),
    }


def _server_frames() -> dict[str, Any]:
    """Return what the gateway sends on a socket of the subprotocol, by message name."""
    limits = {
        "type": "object",
        "required": ["max_runs", "max_credit", "heartbeat_ms"],
        "properties": {name: {"type": "integer"} for name in ("max_runs", "max_credit", "heartbeat_ms")},
    }
    delivered = {
        "type": "object",
        "required": ["run", "delivered"],
        "properties": {"run": {"type": "string"}, "delivered": {"const": True}},
    }
    reconnect = {"type": "object", "required": ["reconnect_in_ms"], "properties": {"reconnect_in_ms": {"type": "integer"}}}
    return {
        "connectionAck": _frame("connection_ack", payload=limits),
        "serverPing": _frame("ping"),
        "serverPong": _frame("pong"),
        "start": _frame("start", id=_ID, payload=reference("StartEvent")),
        "next": _frame("next", id=_ID, eid=_EVENT_ID, payload={}),
        "status": _frame("status", id=_ID, payload=reference("StatusEvent")),
        "gap": _frame("gap", id=_ID, payload=reference("GapEvent")),
        "complete": _frame("complete", id=_ID, payload={"anyOf": [reference("EndEvent"), delivered]}),
        "error": _frame("error", id=_ID, payload=reference("Problem"), optional={"end": {"type": "object"}}),
        "goaway": _frame("goaway", payload=reconnect),
    }


def _method_frames(frames: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return those frames as they are on a socket for one method, by other names: without an `id`."""
    return {f"method{name[0].upper()}{name[1:]}": _without_id(frames[name]) for name in names}


def _without_id(frame: dict[str, Any]) -> dict[str, Any]:
    properties = {name: schema for name, schema in frame["properties"].items() if name != "id"}
    return frame | {"required": [name for name in frame["required"] if name != "id"], "properties": properties}


def _plain_events() -> dict[str, Any]:
    """Return what the gateway sends on a socket of one tool, by message name."""
    kinds = {"start": "StartEvent", "status": "StatusEvent", "gap": "GapEvent", "end": "EndEvent"}
    events = {f"{name}Event": _event(name, reference(model), required=("event", "data")) for name, model in kinds.items()}
    return {"chunkEvent": _event("message", {}, required=("event", "id", "data")), **events}


_ID = {"type": "string", "minLength": 1, "maxLength": ID_LIMIT, "description": "The client's name for a run on this socket."}
# Called by a name with a slash, which no tool has; `args` is the message of one that takes no stream of them.
_ANY_METHOD: dict[str, Any] = {"properties": {"tool": {"pattern": "^[^/]+/[^/]+$"}, "args": {}}}
_FROM_CALLER = ("clientPing", "clientPong", "send", "end", "credit", "cancel")
_TO_CALLER = ("serverPong", "start", "next", "status", "gap", "complete", "error")
_EVENT_ID = {"type": "string", "description": "`<run>.<number>`: goes into `last_event_id` of an `attach`, here or over SSE."}


def _frame(
    kind: str, *, required: Sequence[str] | None = None, optional: dict[str, Any] | None = None, **members: dict[str, Any]
) -> dict[str, Any]:
    """Return the schema of a frame of this type. Its members are required unless `required` says which are."""
    return {
        "type": "object",
        "required": ["type", *(members if required is None else required)],
        "properties": {"type": {"const": kind}, **members, **(optional or {})},
    }


def _event(name: str, data: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {"event": {"const": name}, "id": _EVENT_ID, "data": data}}


def _arguments(tool: Tool) -> dict[str, Any]:
    return portable(tool.parameters) if tool.parameters else {"type": "object"}


def _subprotocol_header() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["Sec-WebSocket-Protocol"],
        "properties": {"Sec-WebSocket-Protocol": {"type": "string", "const": SUBPROTOCOL}},
    }


def _references(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operation(action: str, channel: str, messages: dict[str, Any]) -> dict[str, Any]:
    link = f"#/channels/{channel}"
    return {"action": action, "channel": {"$ref": link}, "messages": [{"$ref": f"{link}/messages/{name}"} for name in messages]}


def _closure(models: dict[str, Any], roots: Sequence[Any]) -> dict[str, Any]:
    """Return those of the models that the roots refer to, and that these refer to."""
    found: dict[str, Any] = {}
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            if name in models and name not in found:
                found[name] = models[name]
                waiting.append(models[name])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return dict(sorted(found.items()))
