"""JSON values to and from Snakepit's protobuf messages.

workers/ encodes arguments and decodes results with it, bridge/ does the reverse. On this wire an `Any` holds
raw JSON text and its type URL is only a hint; other senders pack a wrapper message, as the type URL says, so
both are read. Pickled payloads (`binary_format:*`, `.binary` results) are never opened: they stay bytes.

Source: Snakepit's serialization.py; google/protobuf/wrappers.proto and struct.proto; RFC 8259.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any as JsonValue

import orjson
from google.protobuf import json_format, struct_pb2, wrappers_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

# What Snakepit's own host sends for every value; its BridgeServer accepts nothing else.
JSON_TYPE_URL = "type.googleapis.com/google.protobuf.StringValue"

_PACKED: dict[str, Callable[[], Message]] = {
    name: getattr(module, name)
    for module, names in (
        (
            wrappers_pb2,
            (
                "StringValue",
                "BytesValue",
                "BoolValue",
                "DoubleValue",
                "FloatValue",
                "Int32Value",
                "Int64Value",
                "UInt32Value",
                "UInt64Value",
            ),
        ),
        (struct_pb2, ("Struct", "Value", "ListValue")),
    )
    for name in names
}


def json_bytes(value: JsonValue) -> bytes:
    """Return `value` as JSON text in UTF-8. Integers of any size stay exact; NaN and infinities become null.

    Raises:
        TypeError: the value holds something that JSON has no form for.
    """
    try:
        return orjson.dumps(value)
    except TypeError:  # orjson refuses integers over 64 bits, and lone surrogates
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).encode()


def bytes_json(data: bytes) -> bytes:
    """Return the JSON form of bytes that aren't text: `{"$bytes": "<base64>"}`."""
    return b'{"$bytes":"' + base64.b64encode(data) + b'"}'


def json_payload(data: bytes) -> bytes:
    """Return `data` itself where it is valid JSON, else the JSON value that says the same.

    Bare NaN and infinities inside otherwise valid JSON become null, text becomes a JSON string, what isn't
    UTF-8 becomes `$bytes`, nothing becomes null. A changed payload is a new object: `result is data` tells.
    """
    try:
        orjson.loads(data)
        return data
    except orjson.JSONDecodeError:
        return _repaired(data)


def pack_value(value: JsonValue) -> Any:
    """Return an `Any` as Snakepit's host sends it: the StringValue type URL over raw JSON bytes."""
    return Any(type_url=JSON_TYPE_URL, value=json_bytes(value))


def unpack_value(packed: Any) -> JsonValue:
    """Return the JSON value in an `Any`: raw JSON text, or a wrapper message that its type URL names.

    A packed BytesValue is returned as bytes. Integers of any size stay exact.

    Raises:
        ValueError: it is neither. The message says why, in the JSON parser's words.
    """
    message = None if _is_json(packed) else _packed(packed)
    if message is not None:
        return _plain(message)
    return json.loads(packed.value.decode(), parse_constant=_refuse)


def result_json(packed: Any, binary: bytes = b"") -> bytes:
    """Return an ExecuteToolResponse's result as JSON text; `binary` is its binary_result.

    Never raises: a value that can't be read any better becomes a JSON string or `$bytes`, an absent one null.
    """
    if binary or packed.type_url.endswith(".binary"):
        return bytes_json(binary or packed.value)
    if _is_json(packed):
        return packed.value
    message = _packed(packed)
    if message is None:
        return json_payload(packed.value)
    value = _plain(message)
    return bytes_json(value) if isinstance(value, bytes) else json_bytes(value)


# How a packed number begins, where that is white space to JSON: field 1 of 8 and of 4 bytes, which may all be digits.
_NUMBER_TAGS = {"DoubleValue": b"\t", "FloatValue": b"\r"}


def _is_json(packed: Any) -> bool:
    """Whether the value is JSON rather than a packed wrapper.

    Most packed wrappers begin with a line feed (field 1, with a length), as no serialiser begins JSON: without
    looking at it, a packed string of nine digits would pass as indented JSON.
    """
    data = packed.value
    first = data[:1]
    if first == b"\n" or (first in b"\t\r" and first == _NUMBER_TAGS.get(packed.type_url.rpartition(".")[2])):
        return False
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _packed(packed: Any) -> Message | None:
    """The wrapper message that the type URL names; None where it names none, or the value isn't one."""
    kind = _PACKED.get(packed.type_url.rpartition(".")[2])
    if kind is None:
        return None
    message = kind()
    try:
        message.ParseFromString(packed.value)
    except DecodeError:
        return None
    return message


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _plain(message: Message) -> JsonValue:
    if isinstance(message, struct_pb2.Struct | struct_pb2.Value | struct_pb2.ListValue):
        return json_format.MessageToDict(message)
    return message.value  # type: ignore[attr-defined]  # every wrapper has this one field


def _repaired(data: bytes) -> bytes:
    """The slow path of json_payload: `data` is not JSON in orjson's eyes."""
    if not data:
        return b"null"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return bytes_json(data)
    changed = False

    def null(_constant: str) -> None:
        nonlocal changed
        changed = True

    def number(literal: str) -> float | None:
        value = float(literal)
        if math.isfinite(value):
            return value
        null(literal)
        return None

    try:
        value = json.loads(text, parse_constant=null, parse_float=number)
    except (ValueError, RecursionError):
        # ASCII escapes only where a naive reader would split the line; orjson leaves those characters bare.
        splits = any(mark in text for mark in "\u0085\u2028\u2029")
        return json.dumps(text).encode() if splits else orjson.dumps(text)
    return json.dumps(value, separators=(",", ":")).encode() if changed else data


def _finite(value: JsonValue) -> JsonValue:
    """A copy of a JSON value with null for what is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
