"""One message type to and from proto3 JSON; used by services/ for what goes to a service and what comes of it.

Names come out in lowerCamelCase and go in so or as they are in the proto file; 64-bit integers are text, bytes base64, enums their
names, and what has the default value is left out, all as `google.protobuf.json_format` has it.

Source: protobuf.dev/programming-guides/json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any as JsonValue

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from gateway.codec.protojson import reader
from gateway.codec.protojson.table import Table
from gateway.codec.protojson.tables import Tables, zero_of
from gateway.codec.protojson.unread import Unread
from gateway.errors import FieldError, GatewayError

# The types that have a form of their own in JSON, and no fields there. (Empty is as any other.)
WELL_KNOWN = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"),
        *("DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value", "BoolValue", "StringValue", "BytesValue"),
    )
)


class Codecs:
    """The codecs of all message types in one pool, each made when it is first asked for."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._tables = Tables(pool)
        self._codecs: dict[str, MessageCodec] = {}

    def codec(self, descriptor: Descriptor) -> MessageCodec:
        """Return the codec for a message type of the pool."""
        codec = self._codecs.get(descriptor.full_name)
        if codec is None:
            codec = self._codecs[descriptor.full_name] = MessageCodec(descriptor, self._pool, self._tables.table(descriptor))
        return codec


class MessageCodec:
    """`descriptor` is the type, `full_name` its name; `pool` is where the type of an Any is looked for. Made by Codecs."""

    def __init__(self, descriptor: Descriptor, pool: DescriptorPool, table: Table) -> None:
        self.descriptor = descriptor
        self.full_name: str = descriptor.full_name
        self._pool = pool
        self._table = table
        self._class: type[Message] = GetMessageClass(descriptor)

    def to_json(self, message: bytes) -> bytes:
        """Return a message from the wire as JSON text in UTF-8.

        An Any of a type that the service's descriptors don't have is `{"@type": …, "value": <its bytes in base64>}`.

        Raises:
            GatewayError: `unreadable-answer`: it is not a message of this type, or holds what JSON has no form for.
        """
        return self.to_json_all((message,))[0]

    def to_json_all(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return a batch of messages as JSON texts, in order. Raises as `to_json` does."""
        made: list[bytes] = []
        reader.texts(messages, self._table, made)
        while len(made) < len(messages):
            made.append(orjson.dumps(self._by_library(messages[len(made)])))
            reader.texts(messages, self._table, made)
        return made

    def to_value(self, message: bytes) -> JsonValue:
        """Return a message from the wire as a JSON value: an object, for nearly all types. Raises as `to_json` does."""
        try:
            return reader.value(message, self._table)
        except Unread:
            return self._by_library(message)

    def _by_library(self, message: bytes) -> JsonValue:
        """Return what the reader did not: as the library writes the message anew, which merges what was in parts, else in its own words."""
        try:
            parsed = self._class.FromString(message)
            try:
                return reader.value(parsed.SerializePartialToString(), self._table)
            except Unread:
                return json_format.MessageToDict(parsed, descriptor_pool=self._pool)
        except (DecodeError, json_format.Error, TypeError, ValueError, RecursionError) as exc:
            raise GatewayError("unreadable-answer", f"a {self.full_name} can't be read: {exc}") from exc

    def default_of(self, field: FieldDescriptor) -> JsonValue:
        """Return what a field of the message is as JSON where it is not set: 0, "", [] …; null for a message."""
        if field.is_repeated:
            return {} if field.message_type is not None and field.message_type.GetOptions().map_entry else []
        return zero_of(field)

    def from_json(self, value: JsonValue) -> bytes:
        """Return the message that a JSON value says, as it goes on the wire.

        Raises:
            GatewayError: `invalid-message`, with an entry in `errors` for each wrong field: its JSON pointer, and what is allowed.
        """
        message = self._class()
        try:
            json_format.ParseDict(value, message, descriptor_pool=self._pool)
            return message.SerializeToString()
        except (json_format.Error, EncodeError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as exc:
            detail = f"not a {self.full_name}: {exc}"
            raise GatewayError("invalid-message", detail, errors=[FieldError("/", str(exc)[:300])]) from exc
