"""A tool's JSON Schema as its worker sends it, judged once: usable, or None.

Called by description.py for what may come from anybody's worker. A schema that passes can be used by runs/arguments.py
and endpoints/ without another look: it compiles, its properties are objects, it is no deeper than DEPTH_LIMIT, and all it
refers to is within itself: a reference to a file or a URL would let a worker choose what the gateway reads, and where from.
Standard: JSON Schema 2020-12.
"""

from __future__ import annotations

from typing import Any

import orjson
from jsonschema_rs import Draft202012Validator, ValidationError

SIZE_LIMIT_BYTES = 256 * 1024
DEPTH_LIMIT = 64


class SchemaUnusable(Exception):
    """Why a schema can't be used, in words for the operator."""


def read_schema(text: str) -> dict[str, Any]:
    """Return the schema in a JSON text.

    Raises:
        SchemaUnusable: it isn't one, or not one that can be used.
    """
    if len(text) > SIZE_LIMIT_BYTES:
        raise SchemaUnusable(f"it has {len(text)} characters, the limit is {SIZE_LIMIT_BYTES}")
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise SchemaUnusable(f"it is not JSON: {exc}") from exc
    if not isinstance(schema, dict):
        raise SchemaUnusable("it is not an object")
    _check_nesting(schema)
    for key in ("properties", "$defs"):
        members = schema.get(key, {})
        if not isinstance(members, dict) or not all(isinstance(member, dict) for member in members.values()):
            raise SchemaUnusable(f"{key} is not an object of schemas that are objects")
    try:
        Draft202012Validator(schema, retriever=_refuse)
    except (ValidationError, ValueError) as exc:
        # The first line says what is wrong, the others show the schema.
        raise SchemaUnusable(str(exc).partition("\n")[0][:300]) from exc
    return schema


def _check_nesting(schema: dict[str, Any]) -> None:
    level: list[Any] = [schema]
    depth = 0
    while level := [child for item in level for child in _children(item)]:
        depth += 1
        if depth > DEPTH_LIMIT:
            raise SchemaUnusable(f"it is nested deeper than {DEPTH_LIMIT} levels")


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def _refuse(uri: str) -> Any:
    raise ValueError(f"it refers to {uri[:200]}, outside itself")
