"""gateway/codec/protojson against the library's json_format: the same JSON for every message, and an error where it has one."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.protojson import Codecs, MessageCodec
from gateway.errors import GatewayError
from tests.services.compiled import message, pool

CODECS = Codecs(pool())


def codec(name: str) -> MessageCodec:
    return CODECS.codec(message(name).DESCRIPTOR)


def by_library(name: str, data: bytes) -> Any:
    return json_format.MessageToDict(message(name).FromString(data), descriptor_pool=pool())


# -- the wire, field by field: so that anything may be there twice, out of order, in another form or missing ---------------------

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
INT_EDGES = [0, 1, 2, 127, 128, 300, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**56 - 1, 2**56, 2**63 - 1, 2**63, 2**64 - 1]
FLOATS = st.one_of(st.floats(), st.floats(width=32), st.sampled_from([0.0, -0.0, 0.1, 1e16, 3.4028234663852886e38]))
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["a_b", "aB", "", "\u2028", '"\\\x00']))
VARINTS = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
}
FIXED = {
    FieldDescriptor.TYPE_FIXED32: ("<I", st.integers(0, 2**32 - 1)),
    FieldDescriptor.TYPE_SFIXED32: ("<i", st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.TYPE_FIXED64: ("<Q", st.integers(0, 2**64 - 1)),
    FieldDescriptor.TYPE_SFIXED64: ("<q", st.integers(-(2**63), 2**63 - 1)),
    FieldDescriptor.TYPE_FLOAT: ("<f", FLOATS),
    FieldDescriptor.TYPE_DOUBLE: ("<d", FLOATS),
}


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def tagged(number: int, wire: int, data: bytes) -> bytes:
    return varint(number << 3 | wire) + (varint(len(data)) + data if wire == LENGTH else data)


@st.composite
def scalar(draw: st.DrawFn, field: FieldDescriptor) -> tuple[int, bytes]:
    """One value as it stands on the wire, and its wire type."""
    if field.type in VARINTS:
        numbers = st.one_of(st.sampled_from(INT_EDGES), st.integers(-(2**31), 2**31 - 1), st.integers(-4, 4))
        return VARINT, varint(draw(numbers))
    if field.type in FIXED:
        form, values = FIXED[field.type]
        value = draw(values)
        try:
            data = struct.pack(form, value)
        except OverflowError:
            data = struct.pack(form, 0.5)
        return (FOUR_BYTES if len(data) == 4 else EIGHT_BYTES), data
    if field.type == FieldDescriptor.TYPE_STRING:
        return LENGTH, draw(TEXTS).encode()
    return LENGTH, draw(st.binary(max_size=8))


@st.composite
def occurrence(draw: st.DrawFn, field: FieldDescriptor, depth: int) -> bytes:
    """A field once more."""
    if field.type == FieldDescriptor.TYPE_GROUP:
        inner = draw(wire(field.message_type, depth - 1)) if depth else b""
        return varint(field.number << 3 | 3) + inner + varint(field.number << 3 | 4)
    if field.message_type is not None:
        return tagged(field.number, LENGTH, draw(wire(field.message_type, depth - 1)) if depth else b"")
    if field.is_repeated and field.type in {*VARINTS, *FIXED} and draw(st.booleans()):
        values = draw(st.lists(scalar(field), max_size=4))
        return tagged(field.number, LENGTH, b"".join(data for _, data in values))
    kind, data = draw(scalar(field))
    return tagged(field.number, kind, data)


UNKNOWN = st.one_of(
    st.builds(lambda number, value: tagged(number, VARINT, varint(value)), st.integers(900, 2**29 - 1), st.integers(0, 2**64 - 1)),
    st.builds(lambda number, data: tagged(number, LENGTH, data), st.integers(900, 1000), st.binary(max_size=5)),
    st.builds(lambda number: tagged(number, EIGHT_BYTES, b"12345678"), st.integers(900, 1000)),
    st.builds(lambda number: tagged(number, FOUR_BYTES, b"1234"), st.integers(900, 1000)),
    # A field of another wire type than it should have.
    st.builds(lambda number: tagged(number, FOUR_BYTES, b"1234"), st.integers(1, 20)),
    # A group.
    st.builds(lambda number: varint(number << 3 | 3) + varint(number << 3 | 4), st.integers(900, 1000)),
)
ANYS = [
    "test.everything.v1.Scalars",
    "test.everything.v1.Node",
    *(f"google.protobuf.{name}" for name in ("Timestamp", "Int64Value", "Any")),
]


@st.composite
def any_wire(draw: st.DrawFn, depth: int) -> bytes:
    name = draw(st.sampled_from(ANYS))
    data = draw(wire(pool().FindMessageTypeByName(name), depth - 1)) if depth else b""
    parts = [tagged(1, LENGTH, f"type.googleapis.com/{name}".encode()), tagged(2, LENGTH, data)]
    return b"".join(draw(st.permutations(parts)))


def wire(descriptor: Descriptor, depth: int) -> st.SearchStrategy[bytes]:
    """The bytes of a message."""
    if descriptor.full_name == "google.protobuf.Any":
        return any_wire(depth)
    fields = st.sampled_from([*descriptor.fields]).flatmap(lambda field: occurrence(field, depth)) if descriptor.fields else UNKNOWN
    # Now and then what isn't known: it mostly leads to the library.
    parts = st.integers(0, 15).flatmap(lambda chance: UNKNOWN if chance == 15 else fields)
    return st.lists(parts, max_size=5).map(b"".join)


def compare(name: str, data: bytes) -> None:
    try:
        expected = by_library(name, data)
    except (DecodeError, json_format.Error, ValueError):
        with pytest.raises(GatewayError):
            codec(name).to_json(data)
        return
    text = codec(name).to_json(data)
    assert json.loads(text) == json.loads(json.dumps(expected)), data
    # A number's sign and its being one at all, which == does not see.
    assert repr(json.loads(text, parse_int=str, parse_float=float)).count("-0.0") == repr(expected).count("-0.0")


TYPES = ["Scalars", "Optionals", "Repeated", "Maps", "Choice", "WellKnown", "Node", "Everything"]


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_a_message_is_what_the_library_makes_of_it(name: str, data: st.DataObject) -> None:
    name = f"everything.v1.{name}"
    compare(name, data.draw(wire(message(name).DESCRIPTOR, 4)))


@given(wire(message("legacy.v1.Legacy").DESCRIPTOR, 3))
def test_proto2_is_what_the_library_makes_of_it(data: bytes) -> None:
    compare("legacy.v1.Legacy", data)


@given(st.sampled_from(TYPES), st.binary(max_size=40))
def test_garbage_is_what_the_library_makes_of_it(name: str, data: bytes) -> None:
    compare(f"everything.v1.{name}", data)


@given(wire(message("everything.v1.Everything").DESCRIPTOR, 4), st.data())
def test_a_damaged_message_is_what_the_library_makes_of_it(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    compare("everything.v1.Everything", bytes(damaged))
