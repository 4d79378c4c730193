"""A tool as a Snakepit worker registers it with its host, as an entry of the catalogue.

Snakepit's adapters tell a parameter by its annotation's name and a default: that becomes a JSON Schema, so that arguments are checked
and a query string is typed as for any other tool. Source: Snakepit's base adapter (types are `__name__` of the annotation in lower
case, or `any`; a default is in validation_json; `**kwargs` appears as a parameter of that name).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog

from gateway.rpc.snakepit_bridge_pb2 import ParameterSpec, ToolRegistration
from gateway.workers.description import Tool
from gateway.workers.schema import SchemaUnusable, read_schema

log = structlog.get_logger("gateway.worker")

_TYPES: Mapping[str, str] = {
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "str": "string",
    "string": "string",
    "bool": "boolean",
    "boolean": "boolean",
    "dict": "object",
    "mapping": "object",
    "map": "object",
    "object": "object",
    "list": "array",
    "sequence": "array",
    "tuple": "array",
    "set": "array",
    "array": "array",
}
# What a base adapter registers besides its tools: the method that executes them.
_EXECUTOR = "execute_tool"


def registered_tools(registrations: Sequence[ToolRegistration], pool: str) -> dict[str, Tool]:
    """Return the tools by name; not the adapter's own `execute_tool`, by which any of them could be called unchecked."""
    return {tool.name: _tool(tool, pool) for tool in registrations if tool.name != _EXECUTOR}


def _tool(registered: ToolRegistration, pool: str) -> Tool:
    required = registered.metadata.get("required_variables", "")
    return Tool(
        name=registered.name,
        pool=pool,
        description=registered.description,
        supports_streaming=registered.supports_streaming or registered.metadata.get("supports_streaming") in ("true", "1"),
        parameters=_usable(registered.name, pool, schema_of(registered.parameters)),
        required_variables=tuple(filter(None, required.split(","))),
    )


def schema_of(parameters: Sequence[ParameterSpec]) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments, of type object."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    is_open = False
    for parameter in parameters:
        if parameter.name == "kwargs":
            is_open = True
            continue
        properties[parameter.name] = field = _field(parameter)
        # `*args` can't be given by name.
        if parameter.required and "default" not in field and parameter.name != "args":
            required.append(parameter.name)
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": is_open}
    if required:
        schema["required"] = required
    return schema


def _field(parameter: ParameterSpec) -> dict[str, Any]:
    field: dict[str, Any] = {}
    known = _TYPES.get(parameter.type.lower())
    validation = _object(parameter.validation_json)
    if known is not None:
        # A parameter that is None unless it is given may be given as None.
        field["type"] = [known, "null"] if "default" in validation and validation["default"] is None else known
    if parameter.description:
        field["description"] = parameter.description
    if "default" in validation:
        field["default"] = validation["default"]
    return field


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text; an empty one where it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _usable(tool: str, pool: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema, or None where it can't be used: the tool then takes any JSON object."""
    try:
        return read_schema(orjson.dumps(schema).decode())
    except SchemaUnusable as exc:
        log.warning("a tool's schema can't be used: it takes any arguments", pool=pool, tool=tool, reason=str(exc))
        return None
