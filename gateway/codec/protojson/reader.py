"""Reads a message's bytes straight into JSON values, by the tables of its type, without protobuf's objects.

A message object of the library is quick to parse and slow to walk; here a field costs one look into a list. What is
not usual is left to the library by raising `Unread`: groups, extensions, a message that is there twice and has to be merged, an
unknown number of a closed enum, and all that is no message at all. So what is returned is right, and the library alone says what is wrong.

Compiled by mypyc; `i64` are numbers of the machine there. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Any as JsonValue
from typing import Final

import orjson
from google.protobuf.field_mask_pb2 import FieldMask
from mypy_extensions import i64

from gateway.codec.protojson.forms import double_value, duration_text, float_value, timestamp_text
from gateway.codec.protojson.table import (
    ANY,
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    FIELD_MASK,
    FIXED32,
    FIXED64,
    FLOAT,
    INT32,
    INT64,
    LIST_VALUE,
    MAP,
    MESSAGE,
    NULL,
    OBJECT,
    PACKED,
    SFIXED32,
    SINGLE,
    SINT32,
    SINT64,
    SMALL_TAGS,
    STRING,
    STRUCT,
    TIMESTAMP,
    UINT32,
    UINT64,
    VALUE,
    WRAPPER,
    Field,
    Table,
)
from gateway.codec.protojson.unread import Unread

# As deep as the library goes.
DEPTH_LIMIT: Final = 100

_UINT32: Final = struct.Struct("<I")
_INT32: Final = struct.Struct("<i")
_FLOAT: Final = struct.Struct("<f")
_UINT64: Final = struct.Struct("<Q")
_INT64: Final = struct.Struct("<q")
_DOUBLE: Final = struct.Struct("<d")
_SIGN: Final = 1 << 63


def texts(messages: Sequence[bytes], table: Table, made: list[bytes]) -> None:
    """Add to `made` the JSON texts of the messages from the len(made)-th on, up to the first that has to be left to the library."""
    try:
        for position in range(len(made), len(messages)):
            message = messages[position]
            made.append(orjson.dumps(_message(message, 0, len(message), table, 1)))
    except (Unread, IndexError, UnicodeDecodeError, struct.error):
        # Cut short (IndexError, struct.error), or a text that is none.
        pass


def value(message: bytes, table: Table) -> JsonValue:
    """Return a message as a JSON value.

    Raises:
        Unread: it has to be left to the library.
    """
    try:
        return _message(message, 0, len(message), table, 1)
    except (IndexError, UnicodeDecodeError, struct.error) as exc:
        raise Unread from exc


def _message(data: bytes, position: i64, end: i64, table: Table, depth: i64) -> JsonValue:
    """Return the message between two places."""
    if depth > DEPTH_LIMIT:
        raise Unread
    kind: i64 = table.kind
    if kind == OBJECT:
        return _fields(data, position, end, table, depth)
    if kind <= DURATION:
        return _time(data, position, end, kind)
    if kind == ANY:
        return _any(data, position, end, table, depth)
    fields = _fields(data, position, end, table, depth)
    if kind == STRUCT:
        return fields.get("fields", {})
    if kind == LIST_VALUE:
        return fields.get("values", [])
    if kind == WRAPPER:
        for found in fields.values():
            return found
        first = table.small[8] or table.small[9] or table.small[10] or table.small[13]
        assert first is not None
        return first.zero
    if kind == VALUE:
        if isinstance(fields.get("numberValue"), str):
            # NaN and infinities would be read as text.
            raise Unread
        for found in fields.values():
            return found
        return None
    if kind == FIELD_MASK:
        try:
            return FieldMask(paths=fields.get("paths", [])).ToJsonString()
        except ValueError as exc:
            raise Unread from exc
    raise Unread


def _fields(data: bytes, position: i64, end: i64, table: Table, depth: i64) -> dict[str, JsonValue]:
    """Return the fields between two places."""
    result: dict[str, JsonValue] = {}
    small = table.small
    while position < end:
        tag: i64 = data[position]
        position += 1
        field: Field | None
        if tag < SMALL_TAGS:
            field = small[tag]
        else:
            tag, position = _varint(data, position - 1)
            # A small one may have been written with more bytes than it needs.
            field = small[tag] if tag < SMALL_TAGS else table.fields.get(tag)
        if field is None:
            if table.is_extendable:
                raise Unread
            position = _skipped(data, position, tag)
            continue
        name = field.name
        shape: i64 = field.shape
        if shape == SINGLE:
            if field.kind == MESSAGE and name in result:
                # Both parts count, field by field.
                raise Unread
            found, position = _one(data, position, end, field, depth)
            if field.implicit and found == field.zero and not _is_minus_zero(found):
                result.pop(name, None)
                continue
            result[name] = found
            if field.others is not None:
                for other in field.others:
                    result.pop(other, None)
        elif shape == MAP:
            position = _entry(data, position, end, field, result, depth)
        elif shape == PACKED:
            position = _packed(data, position, end, field, result, depth)
        else:
            found, position = _one(data, position, end, field, depth)
            values: list[JsonValue] | None = result.get(name)
            if values is None:
                result[name] = [found]
            else:
                values.append(found)
    if position > end:
        raise Unread
    if table.defaults is not None:
        for name, zero in table.defaults.items():
            if name not in result:
                result[name] = zero.copy() if isinstance(zero, list | dict) else zero
    return result


def _one(data: bytes, position: i64, end: i64, field: Field, depth: i64) -> tuple[JsonValue, i64]:
    """Return one value of a field, and the place behind it."""
    kind: i64 = field.kind
    if kind >= STRING:
        length: i64 = data[position]
        position += 1
        if length > 127:
            length, position = _varint(data, position - 1)
        stop = position + length
        if stop > end:
            raise Unread
        if kind == STRING:
            return data[position:stop].decode(), stop
        if kind == BYTES:
            return b2a_base64(data[position:stop], newline=False).decode("ascii"), stop
        assert field.table is not None
        return _message(data, position, stop, field.table, depth + 1), stop
    if kind < FIXED32:
        small: i64 = data[position]
        if small < 128:
            return _integer(small, kind, field), position + 1
        number, position = _number(data, position)
        return _integer(number, kind, field), position
    return _fixed(data, position, kind)


def _integer(number: int, kind: i64, field: Field) -> JsonValue:
    """Return what a varint of 64 bits is for a field."""
    if kind == BOOL:
        return number != 0
    if kind == UINT64:
        return str(number)
    if kind == INT64:
        return str(number if number < _SIGN else number - (_SIGN << 1))
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


def _fixed(data: bytes, position: i64, kind: i64) -> tuple[JsonValue, i64]:
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


def _packed(data: bytes, position: i64, end: i64, field: Field, result: dict[str, JsonValue], depth: i64) -> i64:
    """Add the values that stand together to a field's; return the place behind them."""
    length, position = _varint(data, position)
    stop = position + length
    if stop > end:
        raise Unread
    if length == 0:
        return stop
    values: list[JsonValue] | None = result.get(field.name)
    if values is None:
        values = []
        result[field.name] = values
    while position < stop:
        found, position = _one(data, position, stop, field, depth)
        values.append(found)
    if position > stop:
        raise Unread
    return stop


def _entry(data: bytes, position: i64, end: i64, field: Field, result: dict[str, JsonValue], depth: i64) -> i64:
    """Add an entry to a map; return the place behind it."""
    length, position = _varint(data, position)
    stop = position + length
    if stop > end:
        raise Unread
    key_field, value_field = field.key, field.value
    assert key_field is not None
    assert value_field is not None
    key: JsonValue = key_field.zero
    found: JsonValue = None
    is_there = False
    while position < stop:
        tag: i64 = data[position]
        position += 1
        if tag == key_field.tag:
            key, position = _one(data, position, stop, key_field, depth)
        elif tag == value_field.tag:
            if is_there and value_field.kind == MESSAGE:
                raise Unread
            found, position = _one(data, position, stop, value_field, depth + 1)
            is_there = True
        else:
            raise Unread
    if position > stop:
        raise Unread
    if not is_there:
        found = value_field.zero if value_field.table is None else _message(data, stop, stop, value_field.table, depth + 2)
    entries: dict[str, JsonValue] | None = result.get(field.name)
    if entries is None:
        entries = {}
        result[field.name] = entries
    if isinstance(key, str):
        entries[key] = found
    elif isinstance(key, bool):
        entries["true" if key else "false"] = found
    else:
        entries[str(key)] = found
    return stop


def _time(data: bytes, position: i64, end: i64, kind: i64) -> str:
    """Return a Timestamp or a Duration: both are seconds and nanoseconds."""
    seconds = nanos = 0
    while position < end:
        tag: i64 = data[position]
        number, position = _number(data, position + 1)
        if tag == 8:
            seconds = number if number < _SIGN else number - (_SIGN << 1)
        elif tag == 16:
            nanos = number & 0xFFFFFFFF
            if nanos > 0x7FFFFFFF:
                nanos -= 0x100000000
        else:
            raise Unread
    if position > end:
        raise Unread
    return timestamp_text(seconds, nanos) if kind == TIMESTAMP else duration_text(seconds, nanos)


def _any(data: bytes, position: i64, end: i64, table: Table, depth: i64) -> dict[str, JsonValue]:
    """Return an Any as its type and what it holds: the fields, or the value of a type that has a form of its own.

    What nobody knows the type of is its bytes, in base64: a stream does not end for it.
    """
    type_url = ""
    start = stop = position
    if position == end:
        return {}
    while position < end:
        tag: i64 = data[position]
        length, position = _varint(data, position + 1)
        if position + length > end:
            raise Unread
        if tag == 10:
            type_url = data[position : position + length].decode()
        elif tag == 18:
            start, stop = position, position + length
        else:
            raise Unread
        position += length
    if not type_url and start == stop:
        return {}
    held = table.find(type_url.rpartition("/")[2])
    result: dict[str, JsonValue] = {"@type": type_url}
    if held is None:
        result["value"] = b2a_base64(data[start:stop], newline=False).decode("ascii")
    elif held.kind == OBJECT:
        result.update(_fields(data, start, stop, held, depth + 1))
    else:
        result["value"] = _message(data, start, stop, held, depth + 1)
    return result


def _varint(data: bytes, position: i64) -> tuple[i64, i64]:
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


def _number(data: bytes, position: i64) -> tuple[int, i64]:
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


def _skipped(data: bytes, position: i64, tag: i64) -> i64:
    """Return the place behind a field that is not known."""
    wire = tag & 7
    if tag < 8:
        raise Unread
    if wire == 0:
        _, position = _number(data, position)
        return position
    if wire == 1:
        return position + 8
    if wire == 2:
        length, position = _varint(data, position)
        return position + length
    if wire == 5:
        return position + 4
    raise Unread


def _is_minus_zero(found: JsonValue) -> bool:
    """Whether it is the zero that is not the default value, since its bits are others."""
    return isinstance(found, float) and str(found) == "-0.0"
