"""Values on their way: arguments to the JSON of a request, the JSON of chunks to values.

`{"$bytes": "<base64>"}` stands for bytes in what a tool yields. Chunks are decoded a batch at a time: one parse for all that
arrived together costs a third of a parse for each.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

_BYTES = "$bytes"
_MARK = b'"$bytes"'
# orjson reads an integer over 64 bits, of 19 or more digits, as a float.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def encode_arguments(arguments: Mapping[str, Any]) -> bytes:
    """Return a request's body. Dates, UUIDs, dataclasses and numpy arrays become what orjson makes of them.

    Raises:
        TypeError: a value has no form in JSON; the text names its type.
    """
    try:
        return orjson.dumps(dict(arguments), option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as exc:
        if "64-bit" in str(exc):
            return json.dumps(dict(arguments), allow_nan=False).encode()
        raise TypeError(f"the arguments can't be said in JSON: {exc}") from exc


def decode(text: bytes) -> Any:
    """Return the value of one JSON text.

    Raises:
        ValueError: it is none.
    """
    return decode_all([text])[0]


def decode_all(texts: Sequence[bytes]) -> list[Any]:
    """Return the values of a batch of JSON texts.

    Raises:
        ValueError: one of them is no JSON.
    """
    text = b"[%b]" % b",".join(texts)
    values: list[Any] = orjson.loads(text) if _LONG_NUMBER.search(text) is None else json.loads(text)
    if len(values) != len(texts):
        raise ValueError("a chunk is no single JSON value")
    return [_with_bytes(value) for value in values] if _MARK in text else values


def _with_bytes(value: Any) -> Any:
    """Return the value with its bytes in place of the objects that stand for them, at any depth."""
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and isinstance(encoded := value.get(_BYTES), str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return value
    return {name: _with_bytes(item) for name, item in value.items()}
