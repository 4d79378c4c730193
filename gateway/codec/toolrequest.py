"""Writes ExecuteToolRequest without protobuf's objects: a map of Any costs them more than all else in a short call.

Used by workers/toolstream.py. Fields are written in the order of their numbers, as every protobuf writer does; the
tests read them back with the generated class. Source: protobuf.dev/programming-guides/encoding (a map's entry is a
message of key 1 and value 2; a tag is the field number times 8 plus 2 for what has a length, plus 0 for a varint).
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.call import ToolCall
from gateway.codec.values import JSON_TYPE_URL, json_bytes

_SESSION_ID, _TOOL_NAME, _PARAMETERS, _METADATA, _STREAM, _BINARY = b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x28\x01", b"\x32"
_KEY, _VALUE = b"\x0a", b"\x12"
# The fields type_url and value of an Any: the first is always the same.
_ANY_HEAD = b"\x0a" + bytes((len(JSON_TYPE_URL),)) + JSON_TYPE_URL.encode() + b"\x12"


def encode_request(call: ToolCall, session_id: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the ExecuteToolRequest for `call`, with every argument as JSON in an Any.

    `metadata` None: the call's own. `binary_format:*` is left out of the metadata: it would make a Snakepit worker unpickle the argument.

    Raises:
        TypeError: an argument has no JSON form.
        UnicodeEncodeError: a name has no form in UTF-8 (a lone surrogate).
    """
    parts = [_SESSION_ID, _text(session_id)] if session_id else []
    parts.append(_TOOL_NAME)
    parts.append(_text(call.tool))
    for name, value in call.arguments.items():
        data = json_bytes(value)
        _add_entry(parts, _PARAMETERS, name, _ANY_HEAD + _length(len(data)) + data)
    for key, text in (call.metadata if metadata is None else metadata).items():
        if not key.startswith("binary_format:"):
            _add_entry(parts, _METADATA, key, text.encode())
    if call.streaming:
        parts.append(_STREAM)
    for name, data in call.binary.items():
        _add_entry(parts, _BINARY, name, data)
    return b"".join(parts)


def _add_entry(parts: list[bytes], tag: bytes, key: str, value: bytes) -> None:
    """Add a map's entry, which is a message of its own."""
    head = _KEY + _text(key) + _VALUE + _length(len(value))
    parts.append(tag)
    parts.append(_length(len(head) + len(value)))
    parts.append(head)
    parts.append(value)


def _text(text: str) -> bytes:
    """Return a text with its length."""
    data = text.encode()
    return _length(len(data)) + data


def _length(number: int) -> bytes:
    """Return a varint."""
    if number < 128:
        return _SMALL[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL = [bytes((number,)) for number in range(128)]
