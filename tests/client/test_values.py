from __future__ import annotations

import datetime
import json

import numpy
import pytest
from hypothesis import given

from gateway.client.values import decode, decode_all, encode_arguments
from tests.codec.test_sse import JSON_VALUES


def test_bytes_come_back_at_any_depth_and_look_alikes_stay() -> None:
    text = b'{"a":[{"$bytes":"AP8="}],"b":{"$bytes":"AP8=","c":1},"d":{"$bytes":"no base64"},"e":{"$bytes":5}}'
    assert decode(text) == {"a": [b"\x00\xff"], "b": {"$bytes": "AP8=", "c": 1}, "d": {"$bytes": "no base64"}, "e": {"$bytes": 5}}


@pytest.mark.parametrize("number", [2**63 - 1, 2**64, 10**40, -(2**63) - 1])
def test_an_integer_of_any_length_keeps_all_its_digits(number: int) -> None:
    assert decode(str(number).encode()) == number
    assert json.loads(encode_arguments({"n": number})) == {"n": number}


@pytest.mark.parametrize("text", [b"", b"{", b"1,2", b"nope", b"NaN"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode_all([b"1", text])


@given(JSON_VALUES)
def test_a_value_comes_back(value: object) -> None:
    text = json.dumps(value).encode()
    assert decode_all([text, b"0", text]) == [value, 0, value] or b"$bytes" in text


def test_arguments_may_be_what_tools_yield_too() -> None:
    body = encode_arguments({"when": datetime.date(2026, 11, 25), "row": numpy.array([1, 2])})
    assert json.loads(body) == {"when": "2026-11-25", "row": [1, 2]}


def test_an_argument_that_json_has_no_word_for_is_named() -> None:
    with pytest.raises(TypeError, match="set"):
        encode_arguments({"a": {1, 2}})
