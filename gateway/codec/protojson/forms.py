"""The forms in JSON of single values that have one of their own: times, spans of time, and numbers of 32 bits.

Used by reader.py. Source: google/protobuf/timestamp.proto and duration.proto; RFC 3339.
"""

from __future__ import annotations

import math
import struct
from datetime import datetime, timedelta
from typing import Any as JsonValue
from typing import Final

from gateway.codec.protojson.unread import Unread

_EPOCH: Final = datetime(1970, 1, 1)
_FIRST_SECOND: Final = -62135596800
_LAST_SECOND: Final = 253402300799
_LONGEST_S: Final = 315576000000
_FLOAT: Final = struct.Struct("<f")


def timestamp_text(seconds: int, nanos: int) -> str:
    """Return a Timestamp as RFC 3339 has it, with 0, 3, 6 or 9 digits of a second.

    Raises:
        Unread: it is out of range.
    """
    if not (_FIRST_SECOND <= seconds <= _LAST_SECOND and 0 <= nanos < 1_000_000_000):
        raise Unread
    return (_EPOCH + timedelta(seconds=seconds)).isoformat() + _fraction(nanos) + "Z"


def duration_text(seconds: int, nanos: int) -> str:
    """Return a Duration as seconds, with 0, 3, 6 or 9 digits of one.

    Raises:
        Unread: it is out of range, or its parts have different signs.
    """
    if not (-_LONGEST_S <= seconds <= _LONGEST_S and -1_000_000_000 < nanos < 1_000_000_000):
        raise Unread
    if (seconds < 0 and nanos > 0) or (seconds > 0 and nanos < 0):
        raise Unread
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}s"


def _fraction(nanos: int) -> str:
    if nanos == 0:
        return ""
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03d}"
    if nanos % 1_000 == 0:
        return f".{nanos // 1_000:06d}"
    return f".{nanos:09d}"


def double_value(value: float) -> JsonValue:
    """Return a double as JSON has it: what is not finite is text."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def float_value(value: float) -> JsonValue:
    """Return a float of 32 bits as the shortest number that is the same one in 32 bits, as json_format does."""
    if not math.isfinite(value):
        return double_value(value)
    if value == int(value) and -1e6 < value < 1e6:
        return value
    for precision in range(6, 9):
        rounded = float(f"{value:.{precision}g}")
        if _FLOAT.unpack(_FLOAT.pack(rounded))[0] == value:
            return rounded
    return float(f"{value:.9g}")
