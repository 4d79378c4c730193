"""What the OpenAPI document says of the routes for gRPC services, and of each method's own; only description, as contract.py.

The messages' schemas stand among the components, each under its full name and the direction that it is for: what is taken is more than
what is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.codec import ndjson, sse
from gateway.endpoints.contract import JSON_TYPE, STREAM_TEXT, answer, problems, reference, route
from gateway.endpoints.parameters import IDEMPOTENCY_PARAMETER, PREFER_ASYNC_PARAMETER, RESUME_PARAMETER, option_parameters
from gateway.endpoints.rpcrequests import RPC_OPTIONS, RPC_STARTING_OPTIONS
from gateway.services.directory import Directory
from gateway.services.method import Idempotency, Method
from gateway.services.queries import Query, QueryParameter
from gateway.services.routes import Route
from gateway.services.schema import Schema
from gateway.services.tool import RpcTool

_PROBLEMS: Final = (400, 404, 405, 406, 413, 415, 422, 429, 501, 503, 504)
_REFERENCE: Final = "#/$defs/"
_STREAM_OPTIONS: Final = [*option_parameters(RPC_OPTIONS), RESUME_PARAMETER, PREFER_ASYNC_PARAMETER]
_SINGLE_OPTIONS: Final = [*option_parameters(RPC_STARTING_OPTIONS), PREFER_ASYNC_PARAMETER]


def _stream_answers(message: Schema) -> dict[str, Any]:
    """Return what a streaming method answers; `message` is the schema of one answer."""
    line = {"type": "string", "description": f'{STREAM_TEXT} As lines: `{{"seq":n,"data":…}}`, then `{{"end":…}}`.'}
    collected = {"allOf": [reference("CollectedStream"), {"properties": {"chunks": {"type": "array", "items": message}}}]}
    return {
        "200": {
            "description": "The stream",
            "content": {
                sse.MEDIA_TYPE: {"schema": {"type": "string", "description": STREAM_TEXT}},
                **{kind: {"schema": line} for kind in ndjson.MEDIA_TYPES},
                JSON_TYPE: {"schema": collected},
            },
        },
        "202": answer("With `Prefer: respond-async`: started in the background", "RunDescription"),
        "204": {"description": "A reconnect after the end: there is nothing left"},
        **problems(*_PROBLEMS),
    }


def _single_answers(message: Schema) -> dict[str, Any]:
    return {
        "200": {"description": "The answer", "content": {JSON_TYPE: {"schema": message}}},
        "202": answer("With `Prefer: respond-async`: started in the background", "RunDescription"),
        **problems(*_PROBLEMS),
    }


def _any_answers() -> dict[str, Any]:
    """Return what some method answers, whichever of both it is."""
    either = _stream_answers({})
    either["200"] = {**either["200"], "description": "The answer, or the stream of them"}
    either["200"]["content"][JSON_TYPE] = {"schema": {}}
    return either


def _body(message: Schema) -> dict[str, Any]:
    return {"required": False, "content": {JSON_TYPE: {"schema": message}}}


def _lines_body(name: str) -> dict[str, Any]:
    """Return the body of a method that takes a stream of messages."""
    lines = {"schema": {"type": "string", "description": f"A line for each message, a `{name}` as JSON."}}
    return {"required": False, "content": {ndjson.MEDIA_TYPES[0]: lines}}


RPC_POST = route(
    "Call a method of a gRPC service, with its message as JSON",
    _any_answers(),
    requestBody=_body({}),
    parameters=[*_STREAM_OPTIONS, IDEMPOTENCY_PARAMETER],
)
RPC_GET = route(
    "Call a method of a gRPC service that streams (EventSource) or changes nothing; its message stands in the query",
    _any_answers(),
    parameters=_STREAM_OPTIONS,
)
RPC_SERVICES = route("List the gRPC services", {"200": answer("The services", "RpcServiceList"), **problems()})
RPC_SERVICE = route(
    "Describe a gRPC service, with the schemas of its messages",
    {"200": answer("The service", "RpcServiceDescription"), **problems(404, 503)},
)


class RpcDocument:
    """Adds methods to a document's paths, and their messages to its components."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths: dict[str, dict[str, Any]] = document["paths"]
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        # Whose a message's name among the components is.
        self._owners: dict[str, Directory] = {}

    def add(self, tool: RpcTool) -> None:
        """Add a method's own path."""
        method = tool.method
        path = self._paths.setdefault(f"/v1/rpc/{tool.name}", {})
        taken = self._placed(method.input_schema, tool, "Input")
        operation = self._operation(tool, method.output_schema)
        takes_many = method.kind.client_streams
        if not takes_many and (method.kind.server_streams or method.idempotency is Idempotency.NO_SIDE_EFFECTS):
            query = [self._parameter(parameter, taken) for parameter in _parameters(method)]
            path["get"] = operation | {"operationId": f"{tool.name}_get", "parameters": [*query, *operation["parameters"]]}
        path["post"] = operation | {
            "operationId": f"{tool.name}_post",
            "parameters": [*operation["parameters"], IDEMPOTENCY_PARAMETER],
            "requestBody": _lines_body(method.request.full_name) if takes_many else _body(taken),
        }

    def add_route(self, tool: RpcTool, found: Route, number: int) -> None:
        """Add a path that a method has by google.api.http; `number` tells the method's paths apart."""
        method, binding = found.method, found.binding
        http_method = found.rule.method.lower()
        if method.kind.client_streams or http_method == "*":
            return
        text, patterns = found.template.openapi()
        answered = method.output_schema
        if found.rule.response_body:
            answered = _member(answered, found.rule.response_body, method.response.descriptor)
        operation = self._operation(tool, answered)
        whole = self._placed(method.input_schema, tool, "Input")
        named = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern}}
            for name, pattern in patterns.items()
        ]
        query = [self._parameter(parameter, whole) for parameter in binding.parameters]
        operation |= {"operationId": f"{tool.name}_{http_method}_{number}", "parameters": [*named, *query, *operation["parameters"]]}
        if http_method not in ("get", "head"):
            operation["parameters"].append(IDEMPOTENCY_PARAMETER)
        if binding.body_field is not None:
            part = _member(method.input_schema, binding.body_field.name, method.request.descriptor)
            operation["requestBody"] = _body(self._placed(part, tool, "Input"))
        elif found.rule.body == "*":
            operation["requestBody"] = _body(whole)
        self._paths.setdefault(text, {})[http_method] = operation

    def _operation(self, tool: RpcTool, answered: Schema) -> dict[str, Any]:
        method = tool.method
        message = self._placed(answered, tool, "Output")
        streams = method.kind.server_streams
        operation: dict[str, Any] = {
            "tags": [f"service: {method.service}"],
            "summary": f"{'Stream' if streams else 'Call'} {method.name}",
            "description": method.description,
            "parameters": [*(_STREAM_OPTIONS if streams else _SINGLE_OPTIONS)],
            "responses": _stream_answers(message) if streams else _single_answers(message),
        }
        return operation | {"deprecated": True} if method.deprecated else operation

    def _parameter(self, parameter: QueryParameter, message: Schema) -> dict[str, Any]:
        field = parameter.field
        repeated = field.is_repeated
        schema: dict[str, Any] = {"type": "array", "items": {"type": "string"}} if repeated else {"type": "string"}
        if field.enum_type is not None:
            names = {"enum": [value.name for value in field.enum_type.values]}
            schema = {"type": "array", "items": names} if repeated else names
        return {"name": parameter.name, "in": "query", "required": False, "schema": schema}

    def _placed(self, schema: Schema, tool: RpcTool, direction: str) -> Schema:
        """Return a schema whose `$defs` stand among the components; one that is one of them is a reference to it."""
        definitions: Mapping[str, Schema] = schema.get("$defs", {})
        names = {name: self._name(name, tool, direction) for name in definitions}
        for name, definition in definitions.items():
            self._schemas.setdefault(names[name], _referring(definition, names))
        placed: Schema = _referring({key: value for key, value in schema.items() if key != "$defs"}, names)
        return placed

    def _name(self, name: str, tool: RpcTool, direction: str) -> str:
        """Return a message's name among the components; of two services that each have one of a name, the pool tells them apart."""
        mine = f"{name}-{direction}"
        known = self._owners.setdefault(mine, tool.directory)
        return mine if known is tool.directory else f"{tool.pool}.{mine}"


def _referring(value: Any, names: Mapping[str, str]) -> Any:
    """Return a schema in which references to `$defs` are to components."""
    if isinstance(value, list):
        return [_referring(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: reference(names[item.removeprefix(_REFERENCE)])["$ref"]
        if key == "$ref" and isinstance(item, str) and item.removeprefix(_REFERENCE) in names
        else _referring(item, names)
        for key, item in value.items()
    }


def _member(schema: Schema, name: str, message: Any) -> Schema:
    """Return the schema of one field, with the definitions of all."""
    field = message.fields_by_name.get(name)
    properties = schema.get("properties", {})
    found = properties.get(field.json_name if field is not None else name, {})
    return {**found, "$defs": schema.get("$defs", {})}


def _parameters(method: Method) -> Iterable[QueryParameter]:
    return Query(method.request.descriptor).parameters
