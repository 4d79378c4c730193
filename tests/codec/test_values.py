from __future__ import annotations

import json
import math
from struct import unpack
from typing import Any as JsonValue

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.wrappers_pb2 import BoolValue, BytesValue, DoubleValue, FloatValue, Int64Value, StringValue
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.codec.values import JSON_TYPE_URL, json_bytes, json_payload, pack_value, result_json, unpack_value

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


def packed(message: Message) -> Any:
    result = Any()
    result.Pack(message)
    return result


@given(JSON_VALUES)
def test_value_packed_and_unpacked_is_the_same(value: JsonValue) -> None:
    assert unpack_value(pack_value(value)) == value


def test_packed_value_is_raw_json_under_the_string_type_url() -> None:
    assert pack_value("é") == Any(type_url=JSON_TYPE_URL, value='"é"'.encode())


def test_big_integers_stay_exact_and_non_finite_numbers_beside_them_become_null() -> None:
    assert json_bytes([2**80, math.nan, {"x": math.inf}, (1.5,)]) == b'[1208925819614629174706176,null,{"x":null},[1.5]]'
    assert json_bytes(math.nan) == b"null"


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError):
        json_bytes({"x": object()})


PACKED = [
    (StringValue(value="hello"), "hello"),
    (StringValue(value=""), ""),
    (StringValue(value="123456789"), "123456789"),  # 0A 09 "123456789": a line feed, a tab and a number, were it JSON
    (BoolValue(value=True), True),
    (BoolValue(), False),
    (Int64Value(value=-(2**60)), -(2**60)),
    (DoubleValue(value=1.5), 1.5),
    (BytesValue(value=b"\x00\xff"), b"\x00\xff"),
    (Struct(fields={"a": Value(number_value=1)}), {"a": 1}),
    (ListValue(values=[Value(bool_value=True), Value(null_value=0)]), [True, None]),  # type: ignore[arg-type]
    (Value(string_value="x"), "x"),
]


@pytest.mark.parametrize(("message", "value"), PACKED)
def test_wrapper_message_is_unpacked(message: Message, value: JsonValue) -> None:
    assert unpack_value(packed(message)) == value


@pytest.mark.parametrize(("message", "value"), PACKED)
def test_wrapper_result_becomes_json(message: Message, value: JsonValue) -> None:
    expected = {"$bytes": "AP8="} if isinstance(value, bytes) else value
    assert orjson.loads(result_json(packed(message))) == expected


# As struct.proto has them: no integers, only doubles.
STRUCT_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), children, max_size=4)
    ),
    max_leaves=12,
)


@given(STRUCT_VALUES)
def test_any_packed_value_is_unpacked_as_protobuf_has_it(value: JsonValue) -> None:
    message = json_format.ParseDict(value, Value())
    assert unpack_value(packed(message)) == value
    assert orjson.loads(result_json(packed(message))) == value


@given(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: DoubleValue(value=value))
    | st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda value: FloatValue(value=value))
    | st.integers(-(2**63), 2**63 - 1).map(lambda value: Int64Value(value=value))
    | st.text(st.characters(codec="utf-8")).map(lambda value: StringValue(value=value))
    | st.binary().map(lambda value: BytesValue(value=value))
)
@example(DoubleValue(value=unpack("<d", b"12345678")[0]))  # a tab and digits, were it JSON
@example(FloatValue(value=unpack("<f", b"1234")[0]))  # a carriage return and digits
def test_any_packed_scalar_is_unpacked_as_protobuf_has_it(message: Message) -> None:
    assert unpack_value(packed(message)) == message.value  # type: ignore[attr-defined]


@pytest.mark.parametrize("type_url", ["", JSON_TYPE_URL, "type.googleapis.com/google.protobuf.Value", "type.googleapis.com/snakepit.map"])
def test_json_under_any_type_url_is_json(type_url: str) -> None:
    assert unpack_value(Any(type_url=type_url, value=b' {"a": 1}')) == {"a": 1}
    assert result_json(Any(type_url=type_url, value=b' {"a": 1}')) == b' {"a": 1}'


@pytest.mark.parametrize("value", [b"NaN", b"{", b"\xff", b'{"x": Infinity}'])
def test_argument_that_is_neither_json_nor_packed_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|decode"):
        unpack_value(Any(type_url=JSON_TYPE_URL, value=value))


def test_binary_result_is_passed_on_as_bytes_and_never_opened() -> None:
    pickled = b"\x80\x04K\x01."
    assert result_json(Any(value=b"{}"), pickled) == b'{"$bytes":"gARLAS4="}'
    assert result_json(Any(type_url="type.googleapis.com/snakepit.tensor.binary", value=pickled)) == b'{"$bytes":"gARLAS4="}'


def test_absent_result_is_null() -> None:
    assert result_json(Any()) == b"null"


@given(st.binary())
def test_any_bytes_become_json_that_python_and_orjson_both_read(data: bytes) -> None:
    payload = json_payload(data)
    json.loads(payload, parse_constant=pytest.fail)
    if payload is not data:
        orjson.loads(payload)


@given(JSON_VALUES)
def test_valid_json_is_returned_as_the_same_object(value: JsonValue) -> None:
    data = json.dumps(value).encode()
    assert json_payload(data) is data
