"""arguments.py: parameters of a request as Python values."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from google.protobuf import any_pb2, struct_pb2, wrappers_pb2
from google.protobuf.message import Message

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.runtime.arguments import decode
from gateway.runtime.failure import InvalidArguments

TEXT = "type.googleapis.com/google.protobuf.StringValue"


def one(value: bytes, type_url: str = TEXT) -> Any:
    return decode(bridge.ExecuteToolRequest(parameters={"p": any_pb2.Any(type_url=type_url, value=value)}))["p"]


@pytest.mark.parametrize(
    ("value", "type_url", "expected"),
    [
        (b'"text"', TEXT, "text"),
        (b"[1, 2.5, null]", "", [1, 2.5, None]),
        (b"18446744073709551616123", TEXT, 18446744073709551616123),
        (b'"1.5"', "type.googleapis.com/snakepit.float", 1.5),
        (b'"-Infinity"', "snakepit.float", float("-inf")),
        (b"3.0", "type.googleapis.com/snakepit.integer", 3),
    ],
)
def test_json_bytes_are_read_with_the_type_urls_hint(value: bytes, type_url: str, expected: Any) -> None:
    assert one(value, type_url) == expected


def test_tensor_becomes_a_numpy_array() -> None:
    value = one(b'{"shape": [2, 2], "data": [1, 2, 3, 4]}', "type.googleapis.com/snakepit.tensor")
    np.testing.assert_array_equal(value, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (wrappers_pb2.StringValue(value="plain text"), "plain text"),
        (wrappers_pb2.DoubleValue(value=1.5), 1.5),
        (wrappers_pb2.Int64Value(value=2**53 + 1), 2**53 + 1),
        (wrappers_pb2.BoolValue(value=True), True),
        (struct_pb2.Value(string_value="v"), "v"),
        (struct_pb2.ListValue(values=[struct_pb2.Value(number_value=1)]), [1]),
    ],
)
def test_packed_wrapper_is_unpacked(message: Message, expected: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(message)
    assert one(packed.value, packed.type_url) == expected


def test_packed_struct_is_unpacked() -> None:
    struct = struct_pb2.Struct()
    struct.update({"a": 1, "b": ["x"]})
    packed = any_pb2.Any()
    packed.Pack(struct)
    assert one(packed.value, packed.type_url) == {"a": 1, "b": ["x"]}


@pytest.mark.parametrize(
    ("value", "type_url"),
    [
        (b"", TEXT),
        (b"NaN", ""),
        (b"{", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
        (b'"x"', "snakepit.integer"),
        (b"[1]", "snakepit.float"),
        (b'{"data": [1]}', "snakepit.tensor"),
        (b'{"data": [1], "shape": [7]}', "snakepit.tensor"),
    ],
    ids=str,
)
def test_unreadable_parameter_is_named(value: bytes, type_url: str) -> None:
    if value == b"" and type_url == TEXT:
        # An empty StringValue packs to nothing.
        assert one(value, type_url) == ""
        return
    with pytest.raises(InvalidArguments) as caught:
        one(value, type_url)
    assert caught.value.errors[0].field == "/p"
    assert str(caught.value).startswith(f"Invalid parameter p ({type_url}): ")


def test_binary_parameter_replaces_and_is_never_unpickled() -> None:
    request = bridge.ExecuteToolRequest(
        parameters={"p": any_pb2.Any(value=b"not json")},
        binary_parameters={"p": pickle.dumps(print), "q": b"\x00"},
        metadata={"binary_format:p": "pickle"},
    )
    assert decode(request) == {"p": pickle.dumps(print), "q": b"\x00"}
