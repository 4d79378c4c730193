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

from gateway.codec.protojson import Codecs, MessageCodec, reader
from gateway.errors import GatewayError
from tests.services.compiled import message, pool

CODECS = Codecs(pool())


def codec(name: str) -> MessageCodec:
    return CODECS.codec(message(name).DESCRIPTOR)


def by_library(name: str, data: bytes, with_defaults: bool = False) -> Any:
    return json_format.MessageToDict(message(name).FromString(data), with_defaults, descriptor_pool=pool())


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


WITH_DEFAULTS = Codecs(pool(), with_defaults=True)


@pytest.mark.parametrize("name", ["everything.v1.Everything", "everything.v1.Scalars", "everything.v1.Optionals", "legacy.v1.Legacy"])
@given(data=st.data())
def test_with_defaults_a_message_is_what_the_library_makes_of_it(name: str, data: st.DataObject) -> None:
    message_bytes = data.draw(wire(message(name).DESCRIPTOR, 3))
    try:
        expected = by_library(name, message_bytes, with_defaults=True)
    except (DecodeError, json_format.Error, ValueError):
        return
    made = WITH_DEFAULTS.codec(message(name).DESCRIPTOR).to_json(message_bytes)
    assert json.loads(made) == json.loads(json.dumps(expected))


@given(st.sampled_from(TYPES), st.binary(max_size=40))
def test_garbage_is_what_the_library_makes_of_it(name: str, data: bytes) -> None:
    compare(f"everything.v1.{name}", data)


@given(wire(message("everything.v1.Everything").DESCRIPTOR, 4), st.data())
def test_a_damaged_message_is_what_the_library_makes_of_it(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    compare("everything.v1.Everything", bytes(damaged))


def full(name: str) -> Any:
    """A message of many fields, as every writer writes it."""
    made = message(name)()
    json_format.ParseDict(FULL, made, descriptor_pool=pool())
    return made


NUMBERS = {"aDouble": 1.5, "aFloat": 0.1, "anInt32": -5, "anInt64": "-9007199254740993", "aUint64": "18446744073709551615", "aSint64": "-3"}
FULL = {
    "scalars": {
        **NUMBERS,
        "aBool": True,
        "aString": "Zoë\u2028",
        "aBytes": "AP8=",
        "aMood": "MOOD_BELOW",
        "aFixed64": "7",
        "anSfixed32": -7,
    },
    "optionals": {"anInt32": 0, "aString": "", "aMood": "MOOD_UNSPECIFIED", "aNull": None},
    "repeated": {
        "int32s": [1, -1, 300],
        "doubles": [0, "NaN", "-Infinity"],
        "moods": ["MOOD_COLD", 99],
        "unpackedInt32s": [1, 2],
        "scalars": [{}, {}],
    },
    "maps": {"byString": {"": "a"}, "byBool": {"true": "b"}, "byInt64": {"-5": "AA=="}, "byFixed64": {"1": "2024-01-02T03:04:05.006Z"}},
    "choice": {"nothing": None, "yes": False},
    "wellKnown": {
        "timestamp": "0001-01-01T00:00:00Z",
        "duration": "-0.500s",
        "fieldMask": "aB,c.dE",
        "struct": {"a": [1, None, {"b": "c"}]},
        "value": None,
        "listValue": [],
        "empty": {},
        "int64Value": "0",
        "stringValue": "",
        "any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"},
        "values": [None, False, "x"],
    },
    "node": {"children": [{"name": "a", "left": {}}, {}]},
    "@name": "x",
    "farAway": "y",
}


def test_a_usual_message_is_read_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    made = full("everything.v1.Everything")
    expected = by_library("everything.v1.Everything", made.SerializeToString())
    monkeypatch.setattr(MessageCodec, "_by_library", lambda *_: pytest.fail("it was left to the library"))
    assert json.loads(codec("everything.v1.Everything").to_json(made.SerializeToString())) == expected
    assert expected["wellKnown"] == FULL["wellKnown"]


def test_a_batch_is_its_messages_in_order_whatever_of_it_is_left_to_the_library() -> None:
    note = message("library.v1.Note")
    usual = [note(text=str(number)).SerializeToString() for number in range(5)]
    group = tagged(900, 3, b"") + tagged(900, 4, b"")
    batch = [usual[0], usual[1] + group, usual[2] + group, usual[3], usual[4] + group]
    assert codec("library.v1.Note").to_json_all(batch) == [b'{"text":"%d"}' % number for number in range(5)]
    assert codec("library.v1.Note").to_json_all([]) == []


def test_defaults_are_written_where_that_is_asked_for() -> None:
    book = WITH_DEFAULTS.codec(message("library.v1.Book").DESCRIPTOR)
    expected = {"name": "", "title": "", "pages": "0", "cover": "", "genre": "GENRE_UNSPECIFIED", "authors": [], "ratings": {}}
    assert book.to_value(b"") == expected
    # What is returned is the caller's.
    book.to_value(b"")["authors"].append("somebody")
    assert book.to_value(b"") == expected


def test_a_batch_with_what_is_no_message_is_an_error_that_names_the_type() -> None:
    with pytest.raises(GatewayError, match=r"a test\.library\.v1\.Note can't be read") as caught:
        codec("library.v1.Note").to_json_all([b"", b"\xff"])
    assert (caught.value.problem, caught.value.http_status) == ("unreadable-answer", 502)


def test_an_any_of_an_unknown_type_is_its_bytes() -> None:
    known = message("google.protobuf.Any")(type_url="type.googleapis.com/nobody.Knows", value=b"\x00\xff")
    data = message("everything.v1.WellKnown")(any=known, int32_value={"value": 5}).SerializeToString()
    value = {"any": {"@type": "type.googleapis.com/nobody.Knows", "value": "AP8="}, "int32Value": 5}
    assert codec("everything.v1.WellKnown").to_value(data) == value


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        ({"seconds": 253402300799, "nanos": 999999999}, "9999-12-31T23:59:59.999999999Z"),
        ({"seconds": -62135596800}, "0001-01-01T00:00:00Z"),
        ({"seconds": -1, "nanos": 500_000_000}, "1969-12-31T23:59:59.500Z"),
        ({"nanos": 1_000}, "1970-01-01T00:00:00.000001Z"),
    ],
)
def test_a_timestamp_at_its_limits(timestamp: dict[str, int], text: str) -> None:
    assert (
        codec("google.protobuf.Timestamp").to_json(message("google.protobuf.Timestamp")(**timestamp).SerializeToString())
        == json.dumps(text).encode()
    )


@pytest.mark.parametrize("wrong", [{"seconds": 253402300800}, {"seconds": -62135596801}, {"nanos": -1}, {"nanos": 1_000_000_000}])
def test_a_timestamp_out_of_range_is_an_error(wrong: dict[str, int]) -> None:
    with pytest.raises(GatewayError, match="Timestamp is not valid"):
        codec("google.protobuf.Timestamp").to_json(message("google.protobuf.Timestamp")(**wrong).SerializeToString())


def nested(depth: int, number: int) -> bytes:
    """A message with one of its own kind in it, and so on."""
    data = b""
    for _ in range(depth):
        data = tagged(number, LENGTH, data)
    return data


def test_how_deep_a_message_nests_is_bounded() -> None:
    assert codec("everything.v1.Node").to_json(nested(99, 2)).count(b"left") == 99
    for depth in (100, 101, 5_000):
        compare("everything.v1.Node", nested(depth, 2))
    # Lists in lists: three messages a level.
    for depth in (30, 33, 34, 60):
        data = b""
        for _ in range(depth):
            data = tagged(6, LENGTH, tagged(1, LENGTH, data))
        compare("everything.v1.WellKnown", tagged(5, LENGTH, data))


def test_anys_in_anys_are_bounded() -> None:
    held = message("google.protobuf.Any")()
    for _ in range(50):
        held = message("google.protobuf.Any")(type_url="x/google.protobuf.Any", value=held.SerializeToString())
    assert codec("google.protobuf.Any").to_json(held.SerializeToString()).count(b"@type") == 50
    for _ in range(3_000):
        held = message("google.protobuf.Any")(type_url="x/google.protobuf.Any", value=held.SerializeToString())
    with pytest.raises(GatewayError, match="can't be read"):
        codec("google.protobuf.Any").to_json(held.SerializeToString())


def test_the_reader_stops_at_what_it_leaves_to_the_library() -> None:
    made: list[bytes] = []
    reader.texts([b"", b"\xff", b""], CODECS._tables.table(message("library.v1.Note").DESCRIPTOR), made)
    assert made == [b"{}"]


SCALARS, REPEATED, MAPS, WELL_KNOWN = 1, 3, 4, 6
BEHIND = tagged(8, LENGTH, b"x" * 20)


@pytest.mark.parametrize(
    "data",
    [
        # What is inside goes on behind the end of what it is in, where there are bytes enough.
        tagged(SCALARS, LENGTH, varint(14 << 3 | LENGTH) + b"\x05ab") + BEHIND,
        tagged(SCALARS, LENGTH, varint(3 << 3) + b"\x80") + BEHIND,
        tagged(SCALARS, LENGTH, varint(1 << 3 | EIGHT_BYTES) + b"1234") + BEHIND,
        tagged(SCALARS, LENGTH, varint(999 << 3 | LENGTH) + b"\x05ab") + BEHIND,
        tagged(SCALARS, LENGTH, varint(999 << 3 | EIGHT_BYTES) + b"1234") + BEHIND,
        tagged(SCALARS, LENGTH, b"\x80") + BEHIND,
        tagged(REPEATED, LENGTH, tagged(3, LENGTH, b"\x01\x80")) + BEHIND,
        tagged(REPEATED, LENGTH, tagged(3, LENGTH, b"\x01\x80") + tagged(14, LENGTH, b"a")),
        tagged(REPEATED, LENGTH, tagged(1, LENGTH, b"12345678" + b"1234") + tagged(14, LENGTH, b"abcdef")),
        tagged(REPEATED, LENGTH, varint(3 << 3 | LENGTH) + b"\x05\x01") + BEHIND,
        tagged(MAPS, LENGTH, tagged(1, LENGTH, tagged(1, LENGTH, b"k") + varint(2 << 3 | LENGTH) + b"\x05ab")) + BEHIND,
        tagged(MAPS, LENGTH, tagged(2, LENGTH, varint(1 << 3) + b"\x80") + tagged(1, LENGTH, b"")),
        tagged(
            MAPS, LENGTH, tagged(4, LENGTH, tagged(1, VARINT, b"\x05") + varint(2 << 3 | EIGHT_BYTES) + b"1234") + tagged(1, LENGTH, b"ab")
        ),
        tagged(MAPS, LENGTH, varint(1 << 3 | LENGTH) + b"\x05") + BEHIND,
        tagged(WELL_KNOWN, LENGTH, tagged(1, LENGTH, varint(1 << 3) + b"\x80")) + BEHIND,
        tagged(WELL_KNOWN, LENGTH, tagged(17, LENGTH, varint(1 << 3 | LENGTH) + b"\x05ab")) + BEHIND,
        # Numbers of too many bits, and of too many bytes.
        tagged(SCALARS, LENGTH, tagged(6, VARINT, b"\xff" * 9 + b"\x01")),
        tagged(SCALARS, LENGTH, tagged(6, VARINT, b"\xff" * 9 + b"\x02")),
        tagged(SCALARS, LENGTH, tagged(6, VARINT, b"\xff" * 9 + b"\x7f")),
        tagged(SCALARS, LENGTH, tagged(6, VARINT, b"\xff" * 10 + b"\x01")),
        tagged(SCALARS, LENGTH, tagged(6, VARINT, b"\x85\x80\x80\x00")),
        tagged(SCALARS, LENGTH, tagged(13, VARINT, b"\x80" * 9 + b"\x01")),
        tagged(SCALARS, LENGTH, b"\x98\x80\x80\x80\x00\x05"),
        tagged(SCALARS, LENGTH, b"\x98\x80\x80\x80\x80\x00\x05"),
        tagged(SCALARS, LENGTH, b"\x98\x80\x80\x80\x10\x05"),
        tagged(SCALARS, LENGTH, b"\x72\x81\x80\x80\x80\x00a"),
        tagged(SCALARS, LENGTH, b"\x72\xff\xff\xff\xff\x0fa"),
        # No field has the number 0.
        b"\x00\x01",
        b"\x02\x01a",
        # Kinds of wire that there are not.
        b"\x0e",
        b"\x0f",
        # Half a character.
        tagged(8, LENGTH, b"\xc3"),
        tagged(8, LENGTH, b"\xed\xa0\x80"),
    ],
)
def test_what_is_at_the_limits_of_the_wire_is_what_the_library_makes_of_it(data: bytes) -> None:
    compare("everything.v1.Everything", data)
