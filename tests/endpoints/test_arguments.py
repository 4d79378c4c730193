from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from gateway.endpoints.arguments import from_body, from_query
from gateway.errors import GatewayError
from tests.conftest import TYPED_SCHEMA


def typed(query: str, schema: dict[str, Any] | None = TYPED_SCHEMA) -> dict[str, Any]:
    return from_query(parse_qsl(query, keep_blank_values=True), schema, depth_limit=8)


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("", {}),
        ("whole=-5", {"whole": -5}),
        ("whole=9007199254740993", {"whole": 9007199254740993}),
        ("whole=5.5", {"whole": "5.5"}),
        ("whole=", {"whole": ""}),
        ("whole=1_0", {"whole": "1_0"}),
        ("real=2", {"real": 2}),
        ("real=2.5e3", {"real": 2500.0}),
        ("real=.5", {"real": 0.5}),
        ("real=NaN", {"real": "NaN"}),
        ("real=inf", {"real": "inf"}),
        ("real=1e999", {"real": "1e999"}),
        ("real=1_0.5", {"real": "1_0.5"}),
        ("flag=true&", {"flag": True}),
        ("flag=False", {"flag": False}),
        ("flag=1", {"flag": True}),
        ("flag=yes", {"flag": "yes"}),
        ("text=5", {"text": "5"}),
        ("text=null", {"text": "null"}),
        ("text=%F0%9F%90%8D", {"text": "🐍"}),
        ("numbers=1&numbers=2", {"numbers": [1, 2]}),
        ("numbers=1", {"numbers": [1]}),
        ("numbers=[1,2]", {"numbers": [1, 2]}),
        ("numbers=[]", {"numbers": []}),
        ("numbers=1&numbers=x", {"numbers": [1, "x"]}),
        ("names=1&names=b", {"names": ["1", "b"]}),
        ("names=null", {"names": None}),
        ("maybe=null", {"maybe": None}),
        ("maybe=", {"maybe": None}),
        ("maybe=7", {"maybe": 7}),
        ("level=low", {"level": "low"}),
        ("size=2", {"size": 2}),
        ('options={"a":[1]}', {"options": {"a": [1]}}),
        ("options=x", {"options": "x"}),
        ("any=5", {"any": 5}),
        ("any=five", {"any": "five"}),
        ("unknown=5", {"unknown": 5}),
        ("whole=1&whole=2", {"whole": ["1", "2"]}),
    ],
)
def test_query_values_are_typed_by_the_schema(query: str, arguments: dict[str, Any]) -> None:
    assert typed(query) == arguments
    assert [type(value) for value in typed(query).values()] == [type(value) for value in arguments.values()]


@pytest.mark.parametrize(
    ("query", "arguments"),
    [("a=5", {"a": 5}), ("a=x", {"a": "x"}), ('a={"b":null}', {"a": {"b": None}}), ("a=1&a=x", {"a": [1, "x"]}), ("a=NaN", {"a": "NaN"})],
)
def test_query_of_a_tool_without_a_schema_is_json_or_else_text(query: str, arguments: dict[str, Any]) -> None:
    assert typed(query, None) == arguments


def test_query_values_nested_too_deeply_are_refused() -> None:
    with pytest.raises(GatewayError, match="deeper than 8 levels"):
        typed("options=" + '{"a":' * 9 + "1" + "}" * 9)


def body_error(body: bytes, content_type: str | None = "application/json") -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        from_body(body, content_type, depth_limit=4)
    return caught.value


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"]
)
def test_body_of_any_json_media_type_is_read(content_type: str) -> None:
    assert from_body(b'{"a":[1,{"b":2}]}', content_type, depth_limit=4) == {"a": [1, {"b": 2}]}


def test_empty_body_is_no_arguments_whatever_its_type() -> None:
    assert from_body(b"", None, depth_limit=4) == {}


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_body_of_another_media_type_is_415(content_type: str | None) -> None:
    error = body_error(b"{}", content_type)
    assert (error.problem, error.http_status) == ("unsupported-media-type", 415)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b"[1]", "JSON array"),
        (b'"x"', "JSON string"),
        (b"null", "JSON null"),
        (b"true", "JSON boolean"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_body_that_is_no_object_is_400_and_says_what_it_is(body: bytes, reason: str) -> None:
    error = body_error(body)
    assert (error.problem, error.http_status) == ("invalid-body", 400)
    assert reason in error.detail


@pytest.mark.parametrize(("levels", "fits"), [(4, True), (5, False)])
def test_body_may_be_nested_up_to_the_limit(levels: int, fits: bool) -> None:
    body = b'{"a":' * levels + b"1" + b"}" * levels
    if fits:
        assert from_body(body, "application/json", depth_limit=4)
    else:
        assert "deeper than 4 levels" in body_error(body).detail


def test_brackets_in_texts_are_not_depth() -> None:
    assert from_body(orjson.dumps({"a": "[" * 50}), "application/json", depth_limit=4) == {"a": "[" * 50}
