"""The arguments of a request: a POST's JSON body, or a GET's query typed by the tool's schema.

Query values are texts; the schema says what each is meant to be. A value that doesn't convert is kept as text, so
that the schema check, which every front door shares, names it. Source: docs of the protocol, section 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gateway.errors import GatewayError

Schema = Mapping[str, Any]

_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
# JSON's numbers, and the forms that people type: .5, 5., +1. NaN and infinities have no form in JSON.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_JSON = "application/json"
_CONTAINERS = frozenset({"array", "object"})
_REFERENCE = "#/$defs/"
# How far a type is followed through references and alternatives, which may lead back to where they began.
_REFERENCES_LIMIT = 8


def from_body(body: bytes, content_type: str | None, *, depth_limit: int) -> dict[str, Any]:
    """Return the JSON object in a body; an empty body is an empty object.

    Raises:
        GatewayError: `unsupported-media-type`, `invalid-body` (not JSON, not an object, nested too deeply).
    """
    if not body:
        return {}
    value = value_from_body(body, content_type, depth_limit=depth_limit)
    if not isinstance(value, dict):
        raise GatewayError("invalid-body", f"The body is a JSON {_kind(value)}; it must be an object of arguments")
    return value


def value_from_body(body: bytes, content_type: str | None, *, depth_limit: int) -> Any:
    """Return the JSON value in a body.

    Raises:
        GatewayError: `unsupported-media-type`, `invalid-body` (not JSON, nested too deeply).
    """
    media_type = content_type or ""
    if media_type != _JSON:
        media_type = media_type.partition(";")[0].strip().lower()
    if media_type != _JSON and not media_type.endswith("+json"):
        # Strict on purpose: a form's media type would let any web page post here without asking (no CORS preflight).
        detail = f"Content-Type is {media_type[:60] or 'missing'!r}; allowed: application/json"
        raise GatewayError("unsupported-media-type", detail)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise GatewayError("invalid-body", f"The body is not JSON: {exc}") from exc
    check_depth(value, depth_limit, body)
    return value


def from_query(pairs: Sequence[tuple[str, str]], schema: Schema | None, *, depth_limit: int) -> dict[str, Any]:
    """Return the arguments in a query string. `schema` None: the tool can't be described, values are JSON or else text.

    A name given more than once is a list.
    """
    values: dict[str, list[str]] = {}
    for name, text in pairs:
        values.setdefault(name, []).append(text)
    return {name: _typed(texts, schema, name, depth_limit) for name, texts in values.items()}


def check_depth(value: Any, limit: int, text: bytes | None = None) -> None:
    """Return if `value` is nested at most `limit` deep. `text`: its JSON text, where it is at hand.

    Raises:
        GatewayError: `invalid-body`, naming the limit.
    """
    # A text with fewer brackets than the limit can't be deeper: no walk for nearly every request.
    if text is not None and text.count(b"[") + text.count(b"{") <= limit:
        return
    level, depth = [value], 0
    while level := [child for item in level if isinstance(item, dict | list) for child in _children(item)]:
        depth += 1
        if depth > limit:
            raise GatewayError("invalid-body", f"The arguments are nested deeper than {limit} levels")


def _children(item: dict[str, Any] | list[Any]) -> Sequence[Any]:
    return list(item.values()) if isinstance(item, dict) else item


def _typed(texts: list[str], schema: Schema | None, name: str, depth_limit: int) -> Any:
    if schema is None:
        values = [_json_or_text(text, depth_limit) for text in texts]
        return values[0] if len(values) == 1 else values
    field = schema.get("properties", {}).get(name, {})
    types = _types(field, schema)
    null = "null" in types and texts == ["null"]
    if "array" in types and not null and not (len(texts) == 1 and texts[0].lstrip().startswith("[")):
        items = _items(field, schema)
        return [_convert(text, items, depth_limit) for text in texts]
    if len(texts) > 1:
        return texts
    return _convert(texts[0], types, depth_limit)


def _convert(text: str, types: frozenset[str], depth_limit: int) -> Any:
    """Return the text as the first of its possible types that fits it; the text itself where none does."""
    if "null" in types and text in ("", "null") and "string" not in types:
        return None
    if "boolean" in types and text.lower() in ("true", "false", "1", "0") and not (types & {"integer", "number"} and text in "10"):
        return text.lower() in ("true", "1")
    if "integer" in types and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    if types & _CONTAINERS and text.lstrip()[:1] in ("[", "{"):
        return _json_or_text(text, depth_limit)
    # No type named at all (an annotation that says nothing): JSON where it is JSON, else text.
    return _json_or_text(text, depth_limit) if not types else text


def _json_or_text(text: str, depth_limit: int) -> Any:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    check_depth(value, depth_limit, text.encode())
    return value


def _types(schema: Schema, root: Schema, depth: int = 0) -> frozenset[str]:
    """Return the JSON types that a property's schema allows; empty where it says none, or only by way of itself."""
    if depth > _REFERENCES_LIMIT:
        return frozenset()
    schema = _resolve(schema, root)
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset({named})
    if isinstance(named, list):
        return frozenset(named)
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        return frozenset(_kind(value) for value in values)
    return frozenset().union(*(_types(option, root, depth + 1) for key in ("anyOf", "oneOf") for option in schema.get(key, ())))


def _items(schema: Schema, root: Schema) -> frozenset[str]:
    """Return the JSON types of a list's items; the list may be one of several possible types."""
    schema = _resolve(schema, root)
    options = [schema, *(_resolve(option, root) for key in ("anyOf", "oneOf") for option in schema.get(key, ()))]
    return frozenset().union(*(_types(option["items"], root) for option in options if isinstance(option.get("items"), dict)))


def _resolve(schema: Schema, root: Schema) -> Schema:
    for _ in range(_REFERENCES_LIMIT):
        reference = schema.get("$ref", "")
        if not reference.startswith(_REFERENCE):
            break
        schema = root.get("$defs", {}).get(reference.removeprefix(_REFERENCE), {})
    return schema


_KINDS: Sequence[tuple[type, str]] = (
    (bool, "boolean"),  # before int, which it is a kind of
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


def _kind(value: Any) -> str:
    """Return the JSON type of a value."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")
