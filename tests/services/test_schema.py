"""JSON Schemas of messages: valid themselves, and true of what the codecs make and take."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator, meta

from gateway.codec.protojson import Codecs
from gateway.errors import GatewayError
from gateway.services.comments import descriptions
from gateway.services.directory import Directory
from gateway.services.schema import Direction, schema_of
from tests.codec.test_protojson import FULL, TYPES, wire
from tests.services.compiled import files, message, pool
from tests.services.library import LIBRARY

CODECS = Codecs(pool())
NAMES = [
    *(f"everything.v1.{name}" for name in TYPES),
    "legacy.v1.Legacy",
    "library.v1.Book",
    "google.protobuf.Value",
    "google.protobuf.Any",
]


def schema(name: str, direction: Direction) -> dict[str, Any]:
    return schema_of(message(name).DESCRIPTOR, direction, descriptions(files()))


VALIDATORS = {(name, direction): Draft202012Validator(schema(name, direction)) for name in NAMES for direction in Direction}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one(name: str) -> None:
    for direction in Direction:
        meta.validate(schema(name, direction))
        # Complete in itself, and JSON.
        assert b'"$ref":"#/$defs/' in orjson.dumps(schema(name, direction)) or "$defs" not in schema(name, direction)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(data=st.data())
def test_what_is_made_of_a_message_fits_its_schemas(name: str, data: st.DataObject) -> None:
    try:
        value = CODECS.codec(message(name).DESCRIPTOR).to_value(data.draw(wire(message(name).DESCRIPTOR, 3)))
    except GatewayError:
        return
    value = orjson.loads(orjson.dumps(value))
    # What proto2 requires need not be there, and what is an extension may: it could not be sent so.
    for direction in (Direction.OUT,) if name == "legacy.v1.Legacy" else Direction:
        assert [error.message for error in VALIDATORS[name, direction].iter_errors(value)] == []


def test_a_message_of_all_kinds_fits_its_schemas() -> None:
    for direction in Direction:
        assert [error.message for error in VALIDATORS["everything.v1.Everything", direction].iter_errors(FULL)] == []


@pytest.mark.parametrize(
    "value",
    [
        {"pages": 1.5},
        {"pages": "many"},
        {"titel": "x"},
        {"title": 5},
        {"genre": "PROSE"},
        {"lentTo": "a", "row": 1},
        {"authors": "x"},
        {"authors": [1]},
        {"ratings": {"a": "b"}},
        {"row": 2**31},
        5,
        [],
    ],
)
def test_what_is_refused_does_not_fit_the_schema(value: Any) -> None:
    assert not VALIDATORS["library.v1.Book", Direction.IN].is_valid(value)
    with pytest.raises(GatewayError):
        CODECS.codec(message("library.v1.Book").DESCRIPTOR).from_json(value)


@pytest.mark.parametrize(("field", "value"), [("byInt32", {"x": "1"}), ("byUint32", {"-1": 1}), ("byBool", {"yes": "a"})])
def test_keys_of_maps_are_told_of(field: str, value: Any) -> None:
    assert not VALIDATORS["everything.v1.Maps", Direction.IN].is_valid({field: value})


def test_numbers_of_64_bits_are_text_or_numbers_in_and_text_out() -> None:
    for value, fits_out in (("5", True), (5, False)):
        assert VALIDATORS["library.v1.Book", Direction.IN].is_valid({"pages": value})
        assert VALIDATORS["library.v1.Book", Direction.OUT].is_valid({"pages": value}) is fits_out


def test_a_recursive_message_is_at_the_root_and_among_the_definitions() -> None:
    made = schema("everything.v1.Node", Direction.IN)
    assert made["properties"]["left"] == {"$ref": "#/$defs/test.everything.v1.Node"}
    assert made["$defs"]["test.everything.v1.Node"]["properties"]["left"] == {"$ref": "#/$defs/test.everything.v1.Node"}
    assert VALIDATORS["everything.v1.Node", Direction.IN].is_valid({"left": {"right": {"name": "x"}}})
    assert not VALIDATORS["everything.v1.Node", Direction.IN].is_valid({"left": {"right": {"name": 5}}})


def test_what_proto2_says_is_said() -> None:
    made = schema("legacy.v1.Legacy", Direction.IN)
    assert made["required"] == ["id"]
    assert made["properties"]["name"]["default"] == "nobody"
    assert made["$defs"]["test.legacy.v1.Colour"]["anyOf"][1] == {"enum": [0, 1, 2]}
    assert schema("legacy.v1.Legacy", Direction.OUT)["$defs"]["test.legacy.v1.Colour"]["enum"] == ["NONE", "RED", "GREEN"]


def test_what_is_deprecated_and_what_the_comments_say_is_there() -> None:
    made = schema("everything.v1.Everything", Direction.OUT)
    assert made["description"] == "All of it."
    assert made["properties"]["old"]["deprecated"] is True
    assert made["properties"]["scalars"]["description"] == "One of each kind of number, text and bytes."


def test_schemas_of_methods_are_made_once() -> None:
    method = Directory(files()).methods[f"{LIBRARY}/Echo"]
    assert method.input_schema is method.input_schema
    assert method.input_schema != method.output_schema
