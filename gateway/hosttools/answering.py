"""A host tool's arguments and its answer on the wire.

Arguments come in two encodings, and Snakepit's Python side uses both in one call: JSON under any type URL, and packed wrappers
(text and everything that isn't a number). A result is JSON under the StringValue URL, which that side reads as it is; bytes are
`{"$bytes": "<base64>"}`, as everywhere here: the message has no field for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as JsonValue

from google.protobuf.any_pb2 import Any

from gateway.codec.signature import ArgumentsWrong
from gateway.codec.values import JSON_TYPE_URL, bytes_json, json_bytes, unpack_value
from gateway.errors import FieldError
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.transport.base import MESSAGE_LIMIT_BYTES

_TEXT_LIMIT = 4000
# For what stands around the result in its message.
_ROOM_BYTES = 4096


def arguments_of(parameters: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return arguments by name; bytes for a packed BytesValue.

    Raises:
        ArgumentsWrong: some can't be read.
    """
    arguments: dict[str, JsonValue] = {}
    errors: list[FieldError] = []
    for name, packed in parameters.items():
        try:
            arguments[name] = unpack_value(packed)
        except (ValueError, RecursionError) as exc:
            errors.append(FieldError(f"/{name}", f"neither JSON nor a packed wrapper ({packed.type_url[:200]}): {exc}"))
    if errors:
        raise ArgumentsWrong("; ".join(f"{error.field}: {error.detail}" for error in errors[:5]), errors)
    return arguments


def answer_with(result: JsonValue, elapsed_ms: int) -> pb.ExecuteElixirToolResponse:
    """Return the answer of a function that has returned this; a failure where it can't be said."""
    try:
        data = bytes_json(bytes(result)) if isinstance(result, bytes | bytearray | memoryview) else json_bytes(result)
    except (TypeError, ValueError, RecursionError) as exc:
        return failure(f"TypeError: the result has no JSON form: {exc}", elapsed_ms)
    if len(data) > MESSAGE_LIMIT_BYTES - _ROOM_BYTES:
        return failure(f"the result has {len(data)} bytes as JSON, the limit is {MESSAGE_LIMIT_BYTES - _ROOM_BYTES}", elapsed_ms)
    return pb.ExecuteElixirToolResponse(
        success=True, result=Any(type_url=JSON_TYPE_URL, value=data), execution_time_ms=elapsed_ms, metadata={"tool_type": "host"}
    )


def failure(message: str, elapsed_ms: int = 0) -> pb.ExecuteElixirToolResponse:
    """Return a failure."""
    text = message if len(message) <= _TEXT_LIMIT else f"{message[:_TEXT_LIMIT]}…"
    # A lone surrogate, as in a file's name, has no form in UTF-8.
    text = text.encode("utf-8", "replace").decode()
    return pb.ExecuteElixirToolResponse(success=False, error_message=text, execution_time_ms=elapsed_ms)


def no_such_tool(name: str) -> pb.ExecuteElixirToolResponse:
    """Return the answer for a tool that isn't there, in Snakepit's words."""
    return failure(f"Tool {name} is not an Elixir tool")
