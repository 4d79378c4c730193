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

from gateway.codec.protojson.forms import duration_text, timestamp_text
from gateway.codec.protojson.table import (
    ANY,
    BYTES,
    DURATION,
    FIELD_MASK,
    FIXED32,
    LIST_VALUE,
    MAP,
    MESSAGE,
    OBJECT,
    PACKED,
    SINGLE,
    SMALL_TAGS,
    STRING,
    STRUCT,
    TIMESTAMP,
    VALUE,
    WRAPPER,
    Field,
    Table,
)
from gateway.codec.protojson.unread import Unread
from gateway.codec.protojson.wire import SIGN, fixed, integer, short_varint, skipped, varint

# As deep as the library goes.
DEPTH_LIMIT: Final = 100


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
            tag, position = short_varint(data, position - 1)
            # A small one may have been written with more bytes than it needs.
            field = small[tag] if tag < SMALL_TAGS else table.fields.get(tag)
        if field is None:
            if table.is_extendable:
                raise Unread
            position = skipped(data, position, tag)
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
            length, position = short_varint(data, position - 1)
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
            return integer(small, kind, field), position + 1
        number, position = varint(data, position)
        return integer(number, kind, field), position
    return fixed(data, position, kind)


def _packed(data: bytes, position: i64, end: i64, field: Field, result: dict[str, JsonValue], depth: i64) -> i64:
    """Add the values that stand together to a field's; return the place behind them."""
    length, position = short_varint(data, position)
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
    length, position = short_varint(data, position)
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
        number, position = varint(data, position + 1)
        if tag == 8:
            seconds = number if number < SIGN else number - (SIGN << 1)
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
        length, position = short_varint(data, position + 1)
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


def _is_minus_zero(found: JsonValue) -> bool:
    """Whether it is the zero that is not the default value, since its bits are others."""
    return isinstance(found, float) and str(found) == "-0.0"
