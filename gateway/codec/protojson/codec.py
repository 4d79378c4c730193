"""One message type to and from proto3 JSON; used by services/ for what goes to a service and what comes of it.

Names come out in lowerCamelCase and go in so or as they are in the proto file; 64-bit integers are text, bytes base64, enums their
names, and what has the default value is left out, all as `google.protobuf.json_format` has it.

Source: protobuf.dev/programming-guides/json.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any as JsonValue

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from gateway.errors import FieldError, GatewayError

# The types that have a form of their own in JSON, and no fields there. (Empty is as any other.)
WELL_KNOWN = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"),
        *("DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value", "UInt32Value", "BoolValue", "StringValue", "BytesValue"),
    )
)
_NUMBERS_AS_TEXT = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


class Codecs:
    """The codecs of all message types in one pool, each made when it is first asked for."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._codecs: dict[str, MessageCodec] = {}

    def codec(self, descriptor: Descriptor) -> MessageCodec:
        """Return the codec for a message type of the pool."""
        codec = self._codecs.get(descriptor.full_name)
        if codec is None:
            codec = self._codecs[descriptor.full_name] = MessageCodec(descriptor, self._pool)
        return codec


class MessageCodec:
    """`descriptor` is the type, `full_name` its name; `pool` is where the type of an Any is looked for."""

    def __init__(self, descriptor: Descriptor, pool: DescriptorPool) -> None:
        self.descriptor = descriptor
        self.full_name: str = descriptor.full_name
        self._pool = pool
        self._class: type[Message] = GetMessageClass(descriptor)

    def to_json(self, message: bytes) -> bytes:
        """Return a message from the wire as JSON text in UTF-8.

        Raises:
            GatewayError: `unreadable-answer`: it is not a message of this type, or holds what JSON has no form for.
        """
        return orjson.dumps(self.to_value(message))

    def to_json_all(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return a batch of messages as JSON texts, in order. Raises as `to_json` does."""
        return [self.to_json(message) for message in messages]

    def to_value(self, message: bytes) -> JsonValue:
        """Return a message from the wire as a JSON value: an object, for nearly all types. Raises as `to_json` does."""
        try:
            return json_format.MessageToDict(self._class.FromString(message), descriptor_pool=self._pool)
        except (DecodeError, json_format.Error, TypeError, ValueError, RecursionError) as exc:
            raise GatewayError("unreadable-answer", f"a {self.full_name} can't be read: {exc}") from exc

    def default_of(self, field: FieldDescriptor) -> JsonValue:
        """Return what a field of the message is as JSON where it is not set: 0, "", [] …; null for a message."""
        if field.is_repeated:
            return {} if field.message_type is not None and field.message_type.GetOptions().map_entry else []
        if field.message_type is not None:
            return None
        if field.enum_type is not None:
            return field.enum_type.values_by_number[int(field.default_value)].name
        if field.cpp_type in _NUMBERS_AS_TEXT:
            return str(field.default_value)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return base64.b64encode(bytes(field.default_value)).decode()
        return field.default_value

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
