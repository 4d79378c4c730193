"""Numbers as they stand on protobuf's wire, and what they are in JSON; used by reader.py, and compiled as it is.

Each takes the place where it begins and returns the one behind it. What goes on behind the message's end is the caller's to see; behind
the end of all bytes it is an IndexError or a struct.error. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from typing import Any as JsonValue
from typing import Final

from mypy_extensions import i64

from gateway.codec.protojson.forms import double_value, float_value
from gateway.codec.protojson.table import (
    BOOL,
    DOUBLE,
    FIXED32,
    FIXED64,
    FLOAT,
    INT32,
    INT64,
    NULL,
    SFIXED32,
    SINT32,
    SINT64,
    UINT32,
    UINT64,
    Field,
)
from gateway.codec.protojson.unread import Unread

# What the sign of a number of 64 bits adds to it.
SIGN: Final = 1 << 63

_UINT32: Final = struct.Struct("<I")
_INT32: Final = struct.Struct("<i")
_FLOAT: Final = struct.Struct("<f")
_UINT64: Final = struct.Struct("<Q")
_INT64: Final = struct.Struct("<q")
_DOUBLE: Final = struct.Struct("<d")


def short_varint(data: bytes, position: i64) -> tuple[i64, i64]:
    """Return a tag or a length, and the place behind it."""
    number: i64 = 0
    shift: i64 = 0
    while shift < 35:
        byte: i64 = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if number > 0xFFFFFFFF:
                raise Unread
            return number, position
        shift += 7
    raise Unread


def varint(data: bytes, position: i64) -> tuple[int, i64]:
    """Return a number of 64 bits, and the place behind it."""
    number: i64 = 0
    shift: i64 = 0
    byte: i64
    while shift < 56:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7
    # More than what a number of the machine has room for.
    large: int = number
    byte = data[position]
    large |= int(byte & 127) << 56
    if byte < 128:
        return large, position + 1
    byte = data[position + 1]
    if byte > 1:
        raise Unread
    return large | int(byte) << 63, position + 2


def skipped(data: bytes, position: i64, tag: i64) -> i64:
    """Return the place behind a field that is not known."""
    wire = tag & 7
    if tag < 8:
        raise Unread
    if wire == 0:
        _, position = varint(data, position)
        return position
    if wire == 1:
        return position + 8
    if wire == 2:
        length, position = short_varint(data, position)
        return position + length
    if wire == 5:
        return position + 4
    raise Unread


def fixed(data: bytes, position: i64, kind: i64) -> tuple[JsonValue, i64]:
    """Return a value of four or eight bytes, and the place behind it."""
    if kind == DOUBLE:
        return double_value(_DOUBLE.unpack_from(data, position)[0]), position + 8
    if kind == FLOAT:
        return float_value(_FLOAT.unpack_from(data, position)[0]), position + 4
    if kind == FIXED32:
        return _UINT32.unpack_from(data, position)[0], position + 4
    if kind == SFIXED32:
        return _INT32.unpack_from(data, position)[0], position + 4
    if kind == FIXED64:
        return str(_UINT64.unpack_from(data, position)[0]), position + 8
    return str(_INT64.unpack_from(data, position)[0]), position + 8


def integer(number: int, kind: i64, field: Field) -> JsonValue:
    """Return what a varint of 64 bits is for a field."""
    if kind == BOOL:
        return number != 0
    if kind == UINT64:
        return str(number)
    if kind == INT64:
        return str(number if number < SIGN else number - (SIGN << 1))
    if kind == SINT64:
        return str((number >> 1) ^ -(number & 1))
    number &= 0xFFFFFFFF
    if kind == UINT32:
        return number
    if kind == SINT32:
        return (number >> 1) ^ -(number & 1)
    if number > 0x7FFFFFFF:
        number -= 0x100000000
    if kind == INT32:
        return number
    names = field.names
    assert names is not None
    name = names.get(number)
    if name is None and (field.is_closed or kind == NULL):
        # To a closed enum it is not the field's value at all, but an unknown field.
        raise Unread
    if kind == NULL:
        return None
    return number if name is None else name
