"""One message type to and from proto3 JSON; used by services/ for what goes to a service and what comes of it.

Names come out in lowerCamelCase and go in so or as they are in the proto file; 64-bit integers are text, bytes base64, enums their
names, and what has the default value is left out, all as `google.protobuf.json_format` has it.

Source: protobuf.dev/programming-guides/json.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any as JsonValue

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from gateway.codec.protojson import reader
from gateway.codec.protojson.checker import Checker
from gateway.codec.protojson.table import Table
from gateway.codec.protojson.tables import Tables
from gateway.codec.protojson.unread import Unread
from gateway.errors import FieldError, GatewayError


class Codecs:
    """The codecs of all message types in one pool, each made when it is first asked for.

    `with_defaults`: fields that are not set are in the JSON all the same, where absence means nothing else (0, "", [], {}).
    """

    def __init__(self, pool: DescriptorPool, *, with_defaults: bool = False) -> None:
        self._pool = pool
        self._with_defaults = with_defaults
        self._tables = Tables(pool, with_defaults=with_defaults)
        self._checker = Checker(pool)
        self._codecs: dict[str, MessageCodec] = {}

    def codec(self, descriptor: Descriptor) -> MessageCodec:
        """Return the codec for a message type of the pool."""
        codec = self._codecs.get(descriptor.full_name)
        if codec is None:
            codec = MessageCodec(descriptor, self._pool, self._tables, self._checker, with_defaults=self._with_defaults)
            self._codecs[descriptor.full_name] = codec
        return codec


class MessageCodec:
    """`descriptor` is the type, `full_name` its name; `pool` is where the type of an Any is looked for. Made by Codecs."""

    def __init__(self, descriptor: Descriptor, pool: DescriptorPool, tables: Tables, checker: Checker, *, with_defaults: bool) -> None:
        self.descriptor = descriptor
        self.full_name: str = descriptor.full_name
        self._pool = pool
        self._tables = tables
        self._checker = checker
        self._with_defaults = with_defaults

    # What most types of a large API never need is made when it is asked for.

    @cached_property
    def _table(self) -> Table:
        return self._tables.table(self.descriptor)

    @cached_property
    def _class(self) -> type[Message]:
        return GetMessageClass(self.descriptor)

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
                return json_format.MessageToDict(parsed, self._with_defaults, descriptor_pool=self._pool)
        except (DecodeError, json_format.Error, TypeError, ValueError, RecursionError) as exc:
            raise GatewayError("unreadable-answer", f"a {self.full_name} can't be read: {exc}") from exc

    def from_json(self, value: JsonValue) -> bytes:
        """Return the message that a JSON value says, as it goes on the wire.

        Raises:
            GatewayError: `invalid-message`, with an entry in `errors` for each wrong field: its JSON pointer, and what is allowed.
        """
        mistakes = self._checker.mistakes(value, self.descriptor)
        if mistakes:
            raise self._misfit(mistakes)
        message = self._class()
        try:
            json_format.ParseDict(value, message, descriptor_pool=self._pool)
        except (json_format.Error, TypeError, ValueError, KeyError, AttributeError, RecursionError) as exc:
            raise self._misfit([FieldError("/", str(exc).partition("\n")[0][:300])]) from exc
        if not message.IsInitialized():
            names: list[str] = message.FindInitializationErrors()[:20]  # type: ignore[attr-defined]  # not in the stubs
            raise self._misfit([FieldError("/" + name.replace(".", "/"), "is required") for name in names])
        return message.SerializeToString()

    def _misfit(self, mistakes: Sequence[FieldError]) -> GatewayError:
        first = mistakes[0]
        more = f" (and {len(mistakes) - 1} more, see errors)" if len(mistakes) > 1 else ""
        return GatewayError("invalid-message", f"not a {self.full_name}: {first.field} {first.detail}{more}", errors=mistakes)
