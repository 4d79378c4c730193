"""JSON Schemas (2020-12) of messages: what codec/protojson takes for one, and what it makes of one.

Every message and enum that is mentioned is one entry of `$defs`, under its full name, so recursive ones are no trouble; the message itself
stands at the root, too. A schema is made for people and their tools: `MessageCodec.from_json` is what checks, and it takes more than is
said here (the fields' original names, numbers as text, null for what is absent), as proto3 JSON says.

Source: protobuf.dev/programming-guides/json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]
Descriptions = Mapping[str, str]


class Direction(StrEnum):
    """IN: what is taken; OUT: what is made."""

    IN = "in"
    OUT = "out"


_INT32 = {"type": "integer", "format": "int32", "minimum": -(1 << 31), "maximum": (1 << 31) - 1}
_UINT32 = {"type": "integer", "format": "uint32", "minimum": 0, "maximum": (1 << 32) - 1}
_BOOLEAN = {"type": "boolean"}
_TEXT = {"type": "string"}
_BYTES = {"type": "string", "contentEncoding": "base64"}


def _int64(direction: Direction) -> Schema:
    return {"type": "string" if direction is Direction.OUT else ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]+$"}


def _uint64(direction: Direction) -> Schema:
    return {"type": "string" if direction is Direction.OUT else ["string", "integer"], "format": "uint64", "pattern": "^[0-9]+$"}


def _float(name: str) -> Schema:
    return {"anyOf": [{"type": "number", "format": name}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}


_MakeSchema = Callable[[Direction], Schema]

_SCALARS: Mapping[int, _MakeSchema] = {
    FieldDescriptor.TYPE_DOUBLE: lambda _: _float("double"),
    FieldDescriptor.TYPE_FLOAT: lambda _: _float("float"),
    **dict.fromkeys((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64), _int64),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), _uint64),
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), lambda _: dict(_INT32)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), lambda _: dict(_UINT32)),
    FieldDescriptor.TYPE_BOOL: lambda _: dict(_BOOLEAN),
    FieldDescriptor.TYPE_STRING: lambda _: dict(_TEXT),
    FieldDescriptor.TYPE_BYTES: lambda _: dict(_BYTES),
}

_WELL_KNOWN_NAMES: Mapping[str, _MakeSchema] = {
    "Timestamp": lambda _: {"type": "string", "format": "date-time"},
    "Duration": lambda _: {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "FieldMask": lambda _: {"type": "string", "description": "names of fields, with commas between them"},
    "Struct": lambda _: {"type": "object"},
    "Value": lambda _: {},
    "ListValue": lambda _: {"type": "array"},
    "Any": lambda _: {"type": "object", "properties": {"@type": {"type": "string"}}},
    "DoubleValue": lambda _: _float("double"),
    "FloatValue": lambda _: _float("float"),
    "Int64Value": _int64,
    "UInt64Value": _uint64,
    "Int32Value": lambda _: dict(_INT32),
    "UInt32Value": lambda _: dict(_UINT32),
    "BoolValue": lambda _: dict(_BOOLEAN),
    "StringValue": lambda _: dict(_TEXT),
    "BytesValue": lambda _: dict(_BYTES),
}
_WELL_KNOWN: Mapping[str, _MakeSchema] = {f"google.protobuf.{name}": make for name, make in _WELL_KNOWN_NAMES.items()}
_NULL = "google.protobuf.NullValue"

_KEYS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_BOOL: {"enum": ["true", "false"]},
    **{key: {"pattern": "^-?[0-9]+$"} for key in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)},
    **{key: {"pattern": "^[0-9]+$"} for key in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)},
}


def schema_of(message: Descriptor, direction: Direction, descriptions: Descriptions) -> Schema:
    """Return the schema of a message, complete in itself. `descriptions` are texts by full names."""
    return _Maker(direction, descriptions).make(message)


class _Maker:
    """Makes one schema: what is mentioned waits in a list until it is described, so how deep types nest costs nothing."""

    def __init__(self, direction: Direction, descriptions: Descriptions) -> None:
        self._direction = direction
        self._descriptions = descriptions
        self._waiting: dict[str, Descriptor | EnumDescriptor] = {}

    def make(self, message: Descriptor) -> Schema:
        """Return the root with all that it mentions."""
        root = self._message(message)
        definitions: dict[str, Schema] = {}
        while self._waiting:
            name, mentioned = self._waiting.popitem()
            definitions[name] = self._message(mentioned) if isinstance(mentioned, Descriptor) else self._enum(mentioned)
            for known in self._waiting.keys() & definitions.keys():
                del self._waiting[known]
        if definitions:
            root["$defs"] = {name: definitions[name] for name in sorted(definitions)}
        return root

    def _message(self, message: Descriptor) -> Schema:
        well_known = _WELL_KNOWN.get(message.full_name)
        if well_known is not None:
            return well_known(self._direction)
        schema: Schema = {"type": "object", "title": message.name}
        self._describe(schema, message.full_name)
        if message.GetOptions().deprecated:
            schema["deprecated"] = True
        schema["properties"] = {field.json_name: self._field(field) for field in message.fields}
        if self._direction is Direction.IN:
            schema["additionalProperties"] = False
            required = [field.json_name for field in message.fields if field.is_required]
            if required:
                schema["required"] = required
        choices = [_at_most_one([field.json_name for field in oneof.fields]) for oneof in message.oneofs if len(oneof.fields) > 1]
        if choices:
            schema["allOf"] = choices
        return schema

    def _field(self, field: FieldDescriptor) -> Schema:
        entry = field.message_type if field.message_type is not None and field.message_type.GetOptions().map_entry else None
        if entry is not None:
            schema: Schema = {"type": "object", "additionalProperties": self._one(entry.fields_by_name["value"])}
            names = _KEYS.get(entry.fields_by_name["key"].cpp_type)
            if names is not None:
                schema["propertyNames"] = dict(names)
        elif field.is_repeated:
            schema = {"type": "array", "items": self._one(field)}
        else:
            schema = self._one(field)
            if field.has_default_value:
                default = field.default_value
                if field.enum_type is not None:
                    schema["default"] = field.enum_type.values_by_number[int(default)].name
                elif isinstance(default, bool | int | str):
                    schema["default"] = default
        self._describe(schema, field.full_name)
        if field.GetOptions().deprecated:
            schema["deprecated"] = True
        return schema

    def _one(self, field: FieldDescriptor) -> Schema:
        """Return the schema of one value of a field."""
        mentioned = field.message_type or field.enum_type
        if mentioned is None:
            return _SCALARS[field.type](self._direction)
        well_known = _WELL_KNOWN.get(mentioned.full_name)
        if well_known is not None:
            return well_known(self._direction)
        if mentioned.full_name == _NULL:
            return {"type": "null"}
        self._waiting.setdefault(mentioned.full_name, mentioned)
        return {"$ref": f"#/$defs/{mentioned.full_name}"}

    def _enum(self, enum: EnumDescriptor) -> Schema:
        names = [value.name for value in enum.values]
        schema: Schema = {"title": enum.name}
        lines = [self._descriptions.get(enum.full_name, "")]
        # A value's full name has its enum's parent for a parent, as in C++; its comment is found by the enum's.
        lines += [f"`{name}`: {text}" for name in names if (text := self._descriptions.get(f"{enum.full_name}.{name}", ""))]
        text = "\n\n".join(line for line in lines if line)
        if text:
            schema["description"] = text
        if enum.GetOptions().deprecated:
            schema["deprecated"] = True
        numbers: Schema = {"enum": [value.number for value in enum.values]} if enum.is_closed else {"type": "integer", "format": "int32"}
        if enum.is_closed and self._direction is Direction.OUT:
            return {**schema, "type": "string", "enum": names}
        return {**schema, "anyOf": [{"type": "string", "enum": names}, numbers]}

    def _describe(self, schema: Schema, full_name: str) -> None:
        text = self._descriptions.get(full_name)
        if text:
            schema["description"] = text


def _at_most_one(names: list[str]) -> Schema:
    """Return what a oneof says: one of these members, or none."""
    return {"oneOf": [*({"required": [name]} for name in names), {"not": {"anyOf": [{"required": [name]} for name in names]}}]}
