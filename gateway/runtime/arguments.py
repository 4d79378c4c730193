"""Arguments of a tool out of an ExecuteToolRequest.

Snakepit puts raw JSON bytes into each Any and lets the type URL's last word hint at the type; packed wrappers
(StringValue and the like) are what other gRPC clients send, so they are taken where the bytes are not JSON.
`binary_parameters` replace arguments of the same name and stay bytes: pickle is never read, whatever the
request's `binary_format:*` metadata says.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import any_pb2, json_format, struct_pb2, wrappers_pb2
from google.protobuf.message import DecodeError, Message

from gateway.errors import FieldError
from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.runtime.failure import InvalidArguments

_PACKED: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        wrappers_pb2.StringValue,
        wrappers_pb2.BytesValue,
        wrappers_pb2.DoubleValue,
        wrappers_pb2.FloatValue,
        wrappers_pb2.Int64Value,
        wrappers_pb2.Int32Value,
        wrappers_pb2.UInt64Value,
        wrappers_pb2.UInt32Value,
        wrappers_pb2.BoolValue,
        struct_pb2.Struct,
        struct_pb2.Value,
        struct_pb2.ListValue,
    )
}


def decode(request: bridge.ExecuteToolRequest) -> dict[str, Any]:
    """Return the arguments by name: JSON values, and bytes for the binary ones.

    Raises:
        InvalidArguments: some can't be read; one error for each.
    """
    arguments: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, parameter in request.parameters.items():
        if name in request.binary_parameters:
            continue
        try:
            arguments[name] = _value(parameter)
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError, ImportError) as error:
            errors.append(FieldError(f"/{name}", f"Invalid parameter {name} ({parameter.type_url}): {error}"))
    if errors:
        raise InvalidArguments("; ".join(error.detail for error in errors), errors)
    return arguments | dict(request.binary_parameters)


def _value(parameter: any_pb2.Any) -> Any:
    try:
        # Not orjson: it turns an integer over 64 bits into a float.
        value = json.loads(parameter.value, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        packed = _PACKED.get(parameter.type_url.rpartition("/")[2])
        if packed is None or isinstance(error, RecursionError):
            raise
        try:
            return _unpacked(packed.FromString(parameter.value))
        except DecodeError:
            raise error from None
    match parameter.type_url.rpartition("/")[2].rpartition(".")[2]:
        case "float":
            return float(value)
        case "integer":
            return int(value)
        case "tensor":
            return _array(value)
    return value


def _unpacked(message: Message) -> Any:
    if isinstance(message, struct_pb2.Struct | struct_pb2.Value | struct_pb2.ListValue):
        return json_format.MessageToDict(message)
    return message.value  # type: ignore[attr-defined]


def _array(value: Any) -> Any:
    """Return a numpy array of a Snakepit tensor, `{"shape": […], "data": […]}`."""
    import numpy as np  # only tools that take tensors need it

    return np.array(value["data"]).reshape(value["shape"])


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
