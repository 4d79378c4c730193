"""JSON into messages: what json_format takes is taken, and what is wrong is told of by its place, with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.protojson import Codecs, MessageCodec
from gateway.errors import GatewayError
from tests.codec.test_protojson import TYPES, by_library, wire
from tests.services.compiled import message, pool

CODECS = Codecs(pool())
DIGITS = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}


def codec(name: str) -> MessageCodec:
    return CODECS.codec(message(name).DESCRIPTOR)


def refused(name: str, value: Any) -> list[tuple[str, str]]:
    with pytest.raises(GatewayError) as caught:
        codec(name).from_json(value)
    assert (caught.value.problem, caught.value.http_status) == ("invalid-message", 400)
    return [(error.field, error.detail) for error in caught.value.errors]


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_what_the_library_writes_is_read_back(name: str, data: st.DataObject) -> None:
    name = f"everything.v1.{name}"
    try:
        value = by_library(name, data.draw(wire(message(name).DESCRIPTOR, 3)))
        expected = json_format.ParseDict(value, message(name)(), descriptor_pool=pool())
    except Exception:
        # No message, or one that the library itself can't read back.
        return
    read = message(name).FromString(codec(name).from_json(value))
    assert json_format.MessageToDict(read, descriptor_pool=pool()) == json_format.MessageToDict(expected, descriptor_pool=pool())


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(st.sampled_from(TYPES), st.data())
def test_any_json_is_a_message_or_told_of(name: str, data: st.DataObject) -> None:
    kind = message(f"everything.v1.{name}")
    names = [field.json_name for field in kind.DESCRIPTOR.fields] + [field.name for field in kind.DESCRIPTOR.fields]
    value = data.draw(st.one_of(JSON, st.dictionaries(st.sampled_from(names), JSON, max_size=4)))
    error = None
    try:
        made = codec(f"everything.v1.{name}").from_json(value)
    except GatewayError as exc:
        error = exc
    if error is None:
        # The library takes all that we do; it takes more.
        assert kind.FromString(made) == json_format.ParseDict(value, kind(), descriptor_pool=pool())
    else:
        assert error.problem == "invalid-message"
        assert 1 <= len(error.errors) <= 20
        assert all(len(entry.field) <= 300 and "\n" not in entry.detail for entry in error.errors)


@pytest.mark.parametrize(
    ("value", "field", "detail"),
    [
        (5, "/", "must be an object: a test.library.v1.Book"),
        ([], "/", "must be an object: a test.library.v1.Book"),
        ({"titel": "x"}, "/titel", "is no field of test.library.v1.Book; did you mean title? allowed: name, title, pages, cover,"),
        ({"a/b~c": 1}, "/a~1b~0c", "is no field of"),
        ({"pages": 1.5}, "/pages", "must be an integer from -9223372036854775808 to 9223372036854775807"),
        ({"pages": "9223372036854775808"}, "/pages", "must be an integer from -9223372036854775808 to"),
        ({"pages": True}, "/pages", "must be an integer"),
        ({"row": 2**31}, "/row", "must be an integer from -2147483648 to 2147483647"),
        ({"title": 5}, "/title", "must be text"),
        ({"title": "\ud800"}, "/title", "must be text without halves of surrogate pairs"),
        ({"cover": "no base64!"}, "/cover", "must be bytes in base64"),
        ({"genre": "NOVELL"}, "/genre", "must be one of GENRE_UNSPECIFIED, NOVEL, POEMS, or its number; did you mean NOVEL?"),
        ({"genre": 1.5}, "/genre", "must be one of"),
        ({"authors": "Jane"}, "/authors", "must be an array"),
        ({"authors": ["Jane", None]}, "/authors/1", "must not be null"),
        ({"ratings": []}, "/ratings", "must be an object"),
        ({"ratings": {"Ann": "much"}}, "/ratings/Ann", "must be an integer"),
        ({"ratings": {"Ann": None}}, "/ratings/Ann", "must not be null"),
        ({"published": "yesterday"}, "/published", "must be a time as RFC 3339 has it, like 2024-01-02T03:04:05.678Z"),
        ({"published": {"seconds": 5}}, "/published", "must be a time"),
        ({"lentTo": "Ann", "row": 3}, "/row", "can't be there together with lentTo: at most one of the oneof place"),
        ({"lentTo": "Ann", "lent_to": "Ann"}, "/lent_to", "is the same field as lentTo"),
    ],
)
def test_a_mistake_is_told_of_by_its_place(value: Any, field: str, detail: str) -> None:
    ((where, said),) = refused("library.v1.Book", value)
    assert where == field
    assert said.startswith(detail)


@pytest.mark.parametrize(
    ("value", "field", "detail"),
    [
        ({"duration": "5"}, "/duration", "must be seconds with an s behind them, like 1.5s"),
        ({"fieldMask": "a_b"}, "/fieldMask", "must be names of fields in lowerCamelCase"),
        ({"struct": []}, "/struct", "must be an object"),
        ({"listValue": {}}, "/listValue", "must be an array"),
        ({"int32Value": "x"}, "/int32Value", "must be an integer"),
        ({"boolValues": [True, "x"]}, "/boolValues/1", "must be true or false, without quotes"),
        ({"floatValue": 1e39}, "/floatValue", "must be a number from -3.4028234663852886e+38 to"),
        ({"doubleValue": "much"}, "/doubleValue", 'must be a number, "NaN", "Infinity" or "-Infinity"'),
        ({"any": 5}, "/any", "must be an object with a member @type"),
        ({"any": {"a": 1}}, "/any/@type", "must name a message that the service has"),
        ({"any": {"@type": "x/test.Nothing"}}, "/any/@type", "must name a message that the service has"),
        ({"any": {"@type": "x/google.protobuf.Duration"}}, "/any/value", "is required"),
        ({"any": {"@type": "x/google.protobuf.Duration", "value": "1s", "b": 1}}, "/any/b", "must not be there"),
        (
            {"any": {"@type": "x/test.library.v1.Note", "texts": "a"}},
            "/any/texts",
            "is no field of test.library.v1.Note; did you mean text?",
        ),
    ],
)
def test_a_mistake_in_a_well_known_type_is_told_of_by_its_place(value: Any, field: str, detail: str) -> None:
    ((where, said),) = refused("everything.v1.WellKnown", value)
    assert where == field
    assert said.startswith(detail)


@pytest.mark.parametrize(
    ("field", "key", "detail"),
    [("byInt32", "x", "has a key that must be an integer"), ("byBool", "1", "has a key that must be true or false")],
)
def test_a_maps_key_is_told_of(field: str, key: str, detail: str) -> None:
    ((where, said),) = refused("everything.v1.Maps", {field: {key: "1"}})
    assert (where, said.startswith(detail)) == (f"/{field}/{key}", True)


def test_what_has_the_limits_value_is_taken_and_one_more_is_not() -> None:
    for kind, (least, most) in DIGITS.items():
        for value in (least, most, str(least), str(most)):
            assert codec("everything.v1.Scalars").from_json({f"a{'n' if kind[0] == 'i' else ''}_{kind}": value}) is not None
        for value in (least - 1, most + 1):
            assert refused("everything.v1.Scalars", {f"a{'n' if kind[0] == 'i' else ''}_{kind}": value})


def test_all_mistakes_are_told_of_up_to_a_limit() -> None:
    assert [where for where, _ in refused("library.v1.Book", {"title": 1, "pages": "x", "row": []})] == ["/title", "/pages", "/row"]
    assert len(refused("library.v1.Book", {f"name{number}": 1 for number in range(1000)})) == 20
    assert len(refused("library.v1.Book", {"authors": [1] * 1000})) == 20
    assert len(refused("library.v1.Book", {"ratings": {str(number): "x" for number in range(1000)}})) == 20


def test_how_deep_a_message_nests_is_bounded() -> None:
    def nested(depth: int) -> Any:
        value: dict[str, Any] = {}
        for _ in range(depth):
            value = {"left": value}
        return value

    data = codec("everything.v1.Node").from_json(nested(90))
    assert codec("everything.v1.Node").to_value(data) == nested(90)
    ((where, said),) = refused("everything.v1.Node", nested(5_000))
    assert (where.startswith("/left/left"), said) == (True, "is nested deeper than 99 messages")
    value: Any = 1
    for _ in range(200):
        value = [value]
    refused("everything.v1.WellKnown", {"value": value})


def test_what_proto2_requires_and_closes() -> None:
    assert refused("legacy.v1.Legacy", {"inner": {}}) == [("/id", "is required"), ("/inner/id", "is required")]
    assert refused("legacy.v1.Legacy", {"id": 1, "colour": 7}) == [("/colour", "must be one of NONE, RED, GREEN, or its number")]
    value = {"id": 1, "colour": "RED", "part": {"text": "a"}, "[test.legacy.v1.remark]": "said"}
    assert codec("legacy.v1.Legacy").to_value(codec("legacy.v1.Legacy").from_json(value)) == value
    ((_, said),) = refused("legacy.v1.Legacy", {"id": 1, "[test.legacy.v1.nothing]": 1})
    assert 'no field named "[test.legacy.v1.nothing]"' in said


def test_the_value_that_is_given_is_not_changed() -> None:
    value = {"any": {"@type": "type.googleapis.com/test.library.v1.Note", "text": "a"}}
    codec("everything.v1.WellKnown").from_json(value)
    assert value == {"any": {"@type": "type.googleapis.com/test.library.v1.Note", "text": "a"}}
