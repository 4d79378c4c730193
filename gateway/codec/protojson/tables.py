"""Makes the reader's tables from descriptors, each type's when it is first met."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any as JsonValue

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.codec.protojson import table as kinds
from gateway.codec.protojson.table import Field, Table

# Field types to kinds; groups aren't there: the library reads them.
_KINDS: Mapping[int, int] = {
    FieldDescriptor.TYPE_INT32: kinds.INT32,
    FieldDescriptor.TYPE_UINT32: kinds.UINT32,
    FieldDescriptor.TYPE_SINT32: kinds.SINT32,
    FieldDescriptor.TYPE_INT64: kinds.INT64,
    FieldDescriptor.TYPE_UINT64: kinds.UINT64,
    FieldDescriptor.TYPE_SINT64: kinds.SINT64,
    FieldDescriptor.TYPE_BOOL: kinds.BOOL,
    FieldDescriptor.TYPE_ENUM: kinds.ENUM,
    FieldDescriptor.TYPE_FIXED32: kinds.FIXED32,
    FieldDescriptor.TYPE_SFIXED32: kinds.SFIXED32,
    FieldDescriptor.TYPE_FLOAT: kinds.FLOAT,
    FieldDescriptor.TYPE_FIXED64: kinds.FIXED64,
    FieldDescriptor.TYPE_SFIXED64: kinds.SFIXED64,
    FieldDescriptor.TYPE_DOUBLE: kinds.DOUBLE,
    FieldDescriptor.TYPE_STRING: kinds.STRING,
    FieldDescriptor.TYPE_BYTES: kinds.BYTES,
    FieldDescriptor.TYPE_MESSAGE: kinds.MESSAGE,
}
_MESSAGES: Mapping[str, int] = {
    "google.protobuf.Timestamp": kinds.TIMESTAMP,
    "google.protobuf.Duration": kinds.DURATION,
    "google.protobuf.FieldMask": kinds.FIELD_MASK,
    "google.protobuf.Struct": kinds.STRUCT,
    "google.protobuf.ListValue": kinds.LIST_VALUE,
    "google.protobuf.Value": kinds.VALUE,
    "google.protobuf.Any": kinds.ANY,
    **{
        f"google.protobuf.{name}Value": kinds.WRAPPER
        for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
    },
}
# The types that have a form of their own in JSON, and no fields there. (Empty is as any other.)
WELL_KNOWN = frozenset(_MESSAGES)
_NULL = "google.protobuf.NullValue"
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Tables:
    """The tables of one pool's types. `with_defaults`: what has no presence and is not set is written all the same."""

    def __init__(self, pool: DescriptorPool, *, with_defaults: bool = False) -> None:
        self._pool = pool
        self._with_defaults = with_defaults
        self._tables: dict[str, Table] = {}

    def table(self, descriptor: Descriptor) -> Table:
        """Return the table of a type, with those of all that it can hold."""
        waiting: list[tuple[Table, Descriptor]] = []
        made = self._begun(descriptor, waiting)
        while waiting:
            self._fill(*waiting.pop(), waiting)
        return made

    def find(self, name: str) -> Table | None:
        """Return the table of a type by its full name; None where the pool doesn't have it."""
        try:
            return self.table(self._pool.FindMessageTypeByName(name))
        except KeyError:
            return None

    def _begun(self, descriptor: Descriptor, waiting: list[tuple[Table, Descriptor]]) -> Table:
        """Return a type's table; a new one is empty, and waits to be filled: types may hold themselves."""
        table = self._tables.get(descriptor.full_name)
        if table is None:
            kind = _MESSAGES.get(descriptor.full_name, kinds.OBJECT)
            table = self._tables[descriptor.full_name] = Table(descriptor.full_name, kind, self.find)
            waiting.append((table, descriptor))
        return table

    def _fill(self, table: Table, descriptor: Descriptor, waiting: list[tuple[Table, Descriptor]]) -> None:
        table.is_extendable = descriptor.is_extendable
        if self._with_defaults and table.kind == kinds.OBJECT:
            table.defaults = {field.json_name: default_of(field) for field in descriptor.fields if not field.has_presence} or None
        for field in descriptor.fields:
            kind = _KINDS.get(field.type)
            if kind is None:
                # A group: its tags raise by themselves.
                continue
            entry = field.message_type if field.message_type is not None and field.message_type.GetOptions().map_entry else None
            if entry is not None:
                made = Field(field.json_name, _tag(field.number, kinds.MESSAGE), kinds.MESSAGE, kinds.MAP)
                made.key = self._made(entry.fields_by_name["key"], kinds.SINGLE, waiting)
                made.value = self._made(entry.fields_by_name["value"], kinds.SINGLE, waiting)
                _add(table, made)
            elif field.is_repeated:
                _add(table, self._made(field, kinds.REPEATED, waiting))
                if kind < kinds.STRING:
                    # Either is read, whatever the proto file says.
                    packed = self._made(field, kinds.PACKED, waiting)
                    packed.tag = field.number << 3 | _LENGTH
                    _add(table, packed)
            else:
                _add(table, self._made(field, kinds.SINGLE, waiting))

    def _made(self, field: FieldDescriptor, shape: int, waiting: list[tuple[Table, Descriptor]]) -> Field:
        kind = _KINDS[field.type]
        made = Field(field.json_name, _tag(field.number, kind), kind, shape)
        if field.message_type is not None:
            made.table = self._begun(field.message_type, waiting)
        if field.enum_type is not None:
            if field.enum_type.full_name == _NULL:
                made.kind = kinds.NULL
            # Of several names for a number the first counts.
            made.names = {value.number: value.name for value in reversed([*field.enum_type.values])}
            made.is_closed = field.enum_type.is_closed
        if shape == kinds.SINGLE:
            made.zero = zero_of(field)
            made.implicit = not field.has_presence
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                made.others = [member.json_name for member in oneof.fields if member.number != field.number]
        return made


def default_of(field: FieldDescriptor) -> JsonValue:
    """Return what a field is in JSON where it is not set: as `zero_of`; no list and no map are empty ones."""
    if field.is_repeated:
        return {} if field.message_type is not None and field.message_type.GetOptions().map_entry else []
    return zero_of(field)


def zero_of(field: FieldDescriptor) -> JsonValue:
    """Return what one value of a field is in JSON where it is not set: 0, "0", "", a name …; None for a message."""
    if field.message_type is not None:
        return None
    if field.enum_type is not None:
        if field.enum_type.full_name == _NULL:
            return None
        return field.enum_type.values_by_number[int(field.default_value)].name
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
        return str(field.default_value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(bytes(field.default_value)).decode()
    return field.default_value


def _add(table: Table, field: Field) -> None:
    if field.tag < kinds.SMALL_TAGS:
        table.small[field.tag] = field
    else:
        table.fields[field.tag] = field


def _tag(number: int, kind: int) -> int:
    """Return the tag of a field that isn't packed."""
    if kind < kinds.FIXED32:
        wire = _VARINT
    elif kind < kinds.FIXED64:
        wire = _FOUR_BYTES
    elif kind < kinds.STRING:
        wire = _EIGHT_BYTES
    else:
        wire = _LENGTH
    return number << 3 | wire
