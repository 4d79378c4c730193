"""A tool's value as JSON bytes (RFC 8259): what every chunk and every result is on the wire.

orjson does the work in one pass. What it refuses (integers over 64 bits, odd keys, cycles, unknown types) goes
through a walk in Python that either finds plain values for everything or names the type and the place.
Invariant: the bytes are always valid JSON of valid Unicode: NaN and infinities are null, lone surrogates
become U+FFFD, and the line separators U+0085, U+2028 and U+2029 are escaped, so that readers which split text
with `str.splitlines` survive.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
from collections import deque
from collections.abc import Mapping, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson

from gateway.runtime.failure import TooLarge, Unserialisable
from gateway.runtime.limits import PAYLOAD_LIMIT_BYTES

# orjson gives up at 254 levels; the walk stops a little earlier, so that both agree on what is too deep.
DEPTH_LIMIT = 250

_dumps, _loaded, _NUMPY = orjson.dumps, sys.modules, orjson.OPT_SERIALIZE_NUMPY
_LINE_BREAKS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def encode(value: Any) -> bytes:
    """Return `value` as UTF-8 JSON.

    bytes, at any depth, become `{"$bytes": <base64>}`; numpy arrays and scalars lists and numbers; dates and
    times ISO 8601; timedelta its seconds; UUID, Decimal and paths text; an Enum its value; sets and tuples
    lists; dataclasses and pydantic models objects.

    Raises:
        Unserialisable: there is no JSON form; the message names the type and where in the value it sits.
        TooLarge: it does not fit into one message.
    """
    try:
        # The option makes orjson import numpy, so it is given only where a tool has done that already.
        data = _dumps(value, _stand_in, _NUMPY if "numpy" in _loaded else None)
    except (TypeError, RecursionError):
        data = _encode_odd(value)
    return data if data.isascii() and len(data) <= PAYLOAD_LIMIT_BYTES else _checked(data)


def _checked(data: bytes) -> bytes:
    if len(data) > PAYLOAD_LIMIT_BYTES:
        raise TooLarge(f"a value of {len(data):,} bytes as JSON is over the limit of {PAYLOAD_LIMIT_BYTES:,}; yield it in parts")
    for character, escape in _LINE_BREAKS:
        data = data.replace(character, escape)
    return data


def _encode_odd(value: Any) -> bytes:
    """Encode what orjson refused in its strict mode: with keys that are not text, else by the walk."""
    try:
        return _dumps(value, _stand_in, orjson.OPT_NON_STR_KEYS | (_NUMPY if "numpy" in _loaded else 0))
    except (TypeError, RecursionError):
        plain = _walk(value, "$", 0, set())
    # orjson again would lose integers over 64 bits.
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _stand_in(value: Any) -> Any:
    """Return what stands for a value of a type that JSON lacks, one step nearer to plain.

    Raises:
        TypeError: nothing does.
    """
    match value:
        case bytes() | bytearray() | memoryview():
            return {"$bytes": base64.b64encode(value).decode()}
        case tuple() | Set() | deque():
            return list(value)
        case Decimal() | UUID() | PurePath():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Enum():
            return value.value
        case Mapping():
            return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # As orjson does it: underscored fields are private.
        names = (field.name for field in dataclasses.fields(value) if not field.name.startswith("_"))
        return {name: getattr(value, name) for name in names}
    if hasattr(type(value), "model_dump"):
        return value.model_dump()
    if hasattr(type(value), "tolist"):
        # numpy arrays that orjson can't read in place (strided, object, text), array.array, other tensors.
        listed = value.tolist()
        if type(listed) is not type(value):
            return listed
    raise TypeError


def _walk(value: Any, path: str, depth: int, above: set[int]) -> Any:
    """Return `value` in plain JSON types. `above` holds the ids of the containers that `value` sits in."""
    match value:
        case None | True | False:
            return value
        case str():
            return _text(value)
        case int() if not isinstance(value, Enum):
            return int(value)
        case float() if not isinstance(value, Enum):
            return float(value) if math.isfinite(value) else None
    if depth == DEPTH_LIMIT:
        raise Unserialisable(f"nested deeper than {DEPTH_LIMIT} levels at {_shorten(path)}")
    if id(value) in above:
        raise Unserialisable(f"circular reference to {_type_name(value)} at {_shorten(path)}")
    above.add(id(value))
    try:
        match value:
            case dict():
                return {_key(key, path): _walk(item, f"{path}{_step(key)}", depth + 1, above) for key, item in value.items()}
            case list():
                return [_walk(item, f"{path}[{index}]", depth + 1, above) for index, item in enumerate(value)]
        try:
            stand_in = _stand_in(value)
        except TypeError:
            raise Unserialisable(f"can't serialise {_type_name(value)} at {_shorten(path)}") from None
        return _walk(stand_in, path, depth + 1, above)
    finally:
        above.discard(id(value))


def _key(key: Any, path: str) -> str:
    """Return a dict's key as text, as orjson's OPT_NON_STR_KEYS does."""
    match key:
        case str():
            return _text(key)
        case None | True | False:
            return json.dumps(key)
        case int() if not isinstance(key, Enum):
            return str(int(key))
        case float() if not isinstance(key, Enum):
            return repr(float(key)) if math.isfinite(key) else "null"
        case Enum():
            return _key(key.value, path)
        case datetime() | date() | time():
            return key.isoformat()
        case UUID() | Decimal() | PurePath():
            return str(key)
    if hasattr(type(key), "tolist") and type(plain := key.tolist()) is not type(key) and not isinstance(plain, list):
        return _key(plain, path)
    raise Unserialisable(f"can't use {_type_name(key)} as a key of the object at {_shorten(path)}")


def _text(value: str) -> str:
    """Return a plain str of valid Unicode."""
    plain = str.__str__(value)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _step(key: Any) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def _shorten(path: str) -> str:
    """A path is for reading: of a very deep one, the two ends."""
    return path if len(path) <= 200 else f"{path[:100]}…{path[-100:]}"


def _type_name(value: Any) -> str:
    kind = type(value)
    module = kind.__module__.removeprefix("_")
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
