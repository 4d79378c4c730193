"""What is written by hand is read back by the generated class."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import ToolCall
from gateway.codec.toolrequest import encode_request
from gateway.codec.values import JSON_TYPE_URL
from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest

names = st.text(st.characters(codec="utf-8"), max_size=200)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(
    tool=names,
    session=names,
    streaming=st.booleans(),
    arguments=st.dictionaries(names, values, max_size=5),
    metadata=st.dictionaries(names, names, max_size=3),
    binary=st.dictionaries(names, st.binary(max_size=400), max_size=3),
)
def test_every_field_is_read_back(
    tool: str, session: str, streaming: bool, arguments: dict[str, Any], metadata: dict[str, str], binary: dict[str, bytes]
) -> None:
    call = ToolCall(tool, arguments, 1.0, streaming, metadata=metadata, binary=binary)
    request = ExecuteToolRequest.FromString(encode_request(call, session))
    assert (request.tool_name, request.session_id, request.stream) == (tool, session, streaming)
    assert {name: json.loads(value.value) for name, value in request.parameters.items()} == arguments
    assert {value.type_url for value in request.parameters.values()} <= {JSON_TYPE_URL}
    assert dict(request.metadata) == {key: text for key, text in metadata.items() if not key.startswith("binary_format:")}
    assert dict(request.binary_parameters) == binary


@pytest.mark.parametrize("size", [0, 1, 80, 100, 127, 128, 16_000, 16_383, 16_384, 3_000_000])
def test_lengths_of_every_size_are_right(size: int) -> None:
    call = ToolCall("t" * (size % 1000), {"x": "a" * size}, 1.0, binary={"b": b"x" * size})
    request = ExecuteToolRequest.FromString(encode_request(call, "s"))
    assert (json.loads(request.parameters["x"].value), request.binary_parameters["b"]) == ("a" * size, b"x" * size)


def test_pickle_is_never_asked_for() -> None:
    call = ToolCall("t", {}, 1.0, metadata={"binary_format:x": "pickle", "trace": "1"})
    assert dict(ExecuteToolRequest.FromString(encode_request(call, "")).metadata) == {"trace": "1"}


def test_what_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError):
        encode_request(ToolCall("t", {"x": {1, 2}}, 1.0), "")
