"""Looks what is wrong with a JSON value that is to become a message, before the library takes it: all of it, by name, with what is allowed.

The library stops at the first mistake, says it in the words of its code, and overlooks some (an empty list for a message, 1.5 for an enum,
what isn't base64). Used by codec.py. Source: protobuf.dev/programming-guides/json.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any as JsonValue

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.codec.protojson.scalars import fault
from gateway.codec.protojson.tables import WELL_KNOWN
from gateway.errors import FieldError

ERRORS_LIMIT = 20
# As json_format has it, and what comes of it is read by parsers with the same limit.
DEPTH_LIMIT = 99
_NAMES_LIMIT = 20
_POINTER_LIMIT = 300
_EXTENSION = re.compile(r"\[[a-zA-Z0-9._]+\]")

_TEXTS: Mapping[str, tuple[type[Timestamp | Duration | FieldMask], str]] = {
    "google.protobuf.Timestamp": (Timestamp, "must be a time as RFC 3339 has it, like 2024-01-02T03:04:05.678Z"),
    "google.protobuf.Duration": (Duration, "must be seconds with an s behind them, like 1.5s"),
    "google.protobuf.FieldMask": (FieldMask, "must be names of fields in lowerCamelCase with commas between them, like title,lentTo"),
}


class Checker:
    """For the messages of one pool."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._fields: dict[str, dict[str, FieldDescriptor]] = {}

    def mistakes(self, value: JsonValue, message: Descriptor) -> list[FieldError]:
        """Return what is wrong with a value as this message, at most ERRORS_LIMIT of it; nothing: it is one, as far as can be seen."""
        found: list[FieldError] = []
        self._message(value, message, "", 1, found)
        return found[:ERRORS_LIMIT]

    def _message(self, value: JsonValue, message: Descriptor, where: str, depth: int, found: list[FieldError]) -> None:
        if len(found) >= ERRORS_LIMIT:
            return
        if depth > DEPTH_LIMIT:
            found.append(_error(where, f"is nested deeper than {DEPTH_LIMIT} messages"))
            return
        name = message.full_name
        if not name.startswith("google.protobuf."):
            self._object(value, message, where, depth, found)
        elif name in _TEXTS:
            _text(value, name, where, found)
        elif name == "google.protobuf.Any":
            self._any(value, where, depth, found)
        elif message.file.name == "google/protobuf/wrappers.proto":
            _scalar(value, message.fields_by_name["value"], where, found)
        elif name == "google.protobuf.Struct":
            if not isinstance(value, dict):
                found.append(_error(where, "must be an object"))
        elif name == "google.protobuf.ListValue":
            if not isinstance(value, list | tuple):
                found.append(_error(where, "must be an array"))
        elif name != "google.protobuf.Value":
            self._object(value, message, where, depth, found)

    def _object(self, value: JsonValue, message: Descriptor, where: str, depth: int, found: list[FieldError]) -> None:
        if not isinstance(value, dict):
            found.append(_error(where, f"must be an object: a {message.full_name}"))
            return
        fields = self._fields_of(message)
        seen: dict[str, str] = {}
        for name, part in value.items():
            place = f"{where}/{_escaped(name)}"
            field = fields.get(name)
            if field is None:
                # Whether there is such an extension the library knows.
                if not (message.is_extendable and _EXTENSION.fullmatch(name)):
                    found.append(_error(place, _unknown(name, message)))
                continue
            other = seen.setdefault(field.name, name)
            if other is not name:
                found.append(_error(place, f"is the same field as {other}"))
                continue
            oneof = field.containing_oneof
            if oneof is not None and part is not None:
                other = seen.setdefault(f"{oneof.name} ", name)
                if other is not name:
                    found.append(_error(place, f"can't be there together with {other}: at most one of the oneof {oneof.name}"))
            self._field(part, field, place, depth, found)

    def _field(self, value: JsonValue, field: FieldDescriptor, where: str, depth: int, found: list[FieldError]) -> None:
        if value is None:
            # As if it were not there; to a Value it is the null.
            return
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            self._map(value, message, where, depth, found)
        elif field.is_repeated:
            if not isinstance(value, list | tuple):
                found.append(_error(where, "must be an array"))
                return
            for index, item in enumerate(value):
                if item is None and (message is None or message.full_name != "google.protobuf.Value"):
                    found.append(_error(f"{where}/{index}", "must not be null"))
                else:
                    self._value(item, field, f"{where}/{index}", depth, found)
                if len(found) >= ERRORS_LIMIT:
                    return
        else:
            self._value(value, field, where, depth, found)

    def _value(self, value: JsonValue, field: FieldDescriptor, where: str, depth: int, found: list[FieldError]) -> None:
        if field.message_type is not None:
            self._message(value, field.message_type, where, depth + 1, found)
        else:
            _scalar(value, field, where, found)

    def _map(self, value: JsonValue, entry: Descriptor, where: str, depth: int, found: list[FieldError]) -> None:
        if not isinstance(value, dict):
            found.append(_error(where, "must be an object"))
            return
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for key, item in value.items():
            place = f"{where}/{_escaped(key)}"
            wrong = fault(key, key_field, is_key=True)
            if wrong is not None:
                found.append(_error(place, f"has a key that {wrong}"))
            if item is None and (value_field.message_type is None or value_field.message_type.full_name != "google.protobuf.Value"):
                found.append(_error(place, "must not be null"))
            else:
                self._value(item, value_field, place, depth, found)
            if len(found) >= ERRORS_LIMIT:
                return

    def _any(self, value: JsonValue, where: str, depth: int, found: list[FieldError]) -> None:
        if not isinstance(value, dict):
            found.append(_error(where, "must be an object with a member @type"))
            return
        if not value:
            return
        url = value.get("@type")
        try:
            held = self._pool.FindMessageTypeByName(url.rpartition("/")[2]) if isinstance(url, str) else None
        except KeyError:
            held = None
        if held is None:
            form = "must name a message that the service has, like type.googleapis.com/package.Name"
            found.append(_error(f"{where}/@type", form))
        elif held.full_name in WELL_KNOWN:
            surplus = [name for name in value if name not in ("@type", "value")]
            found.extend(_error(f"{where}/{_escaped(name)}", "must not be there: allowed are @type and value") for name in surplus)
            if "value" in value:
                self._message(value["value"], held, f"{where}/value", depth + 1, found)
            else:
                found.append(_error(f"{where}/value", "is required"))
        else:
            self._object({name: part for name, part in value.items() if name != "@type"}, held, where, depth + 1, found)

    def _fields_of(self, message: Descriptor) -> dict[str, FieldDescriptor]:
        """Return a message's fields by either name; a JSON name goes before another field's own."""
        fields = self._fields.get(message.full_name)
        if fields is None:
            fields = {field.name: field for field in message.fields} | {field.json_name: field for field in message.fields}
            self._fields[message.full_name] = fields
        return fields


def _scalar(value: JsonValue, field: FieldDescriptor, where: str, found: list[FieldError]) -> None:
    wrong = fault(value, field)
    if wrong is not None:
        found.append(_error(where, wrong))


def _text(value: JsonValue, name: str, where: str, found: list[FieldError]) -> None:
    kind, form = _TEXTS[name]
    try:
        kind().FromJsonString(value)
    except (ValueError, TypeError, AttributeError):
        found.append(_error(where, form))


def _unknown(name: str, message: Descriptor) -> str:
    known = [field.json_name for field in message.fields]
    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ";"
    more = f" and {len(known) - _NAMES_LIMIT} more" if len(known) > _NAMES_LIMIT else ""
    return f"is no field of {message.full_name}{hint} allowed: {', '.join(known[:_NAMES_LIMIT]) or 'none'}{more}"


def _error(where: str, detail: str) -> FieldError:
    pointer = where or "/"
    return FieldError(pointer if len(pointer) <= _POINTER_LIMIT else pointer[: _POINTER_LIMIT - 1] + "…", detail)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
