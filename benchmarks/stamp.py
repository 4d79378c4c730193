"""The moment in which the upstream made a chunk, inside the chunk: `{"t":<19 digits>,…}`.

Nanoseconds of the monotonic clock, which on Linux is one for all processes, plus an offset that keeps them at 19
digits, so that a chunk's bytes are prepared once and only these change.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable

OFFSET = 10**18
WIDTH = 19

_PLAIN = re.compile(rb'"t":(\d{19})')
# The same 24 bytes `{"t":` and 19 digits as base64: 32 characters.
_ENCODED = re.compile(rb'"(eyJ0Ijo[0-9A-Za-z+/]{25})')

Reader = Callable[[bytes], list[int]]


def now() -> bytes:
    """Return this moment's digits."""
    return b"%d" % (time.monotonic_ns() + OFFSET)


def plain(data: bytes) -> list[int]:
    """Return the moments, in nanoseconds of the monotonic clock, of the chunks in `data`; one cut in two is left out."""
    return [int(digits) - OFFSET for digits in _PLAIN.findall(data)]


def encoded(data: bytes) -> list[int]:
    """Return the same of chunks that are base64 in JSON, as the JSON mapping of protobuf writes bytes."""
    return [int(base64.b64decode(text)[5:]) - OFFSET for text in _ENCODED.findall(data)]
