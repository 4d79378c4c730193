"""HTTP headers as gRPC metadata and back: which ones the settings may name, and which values go through.

A header goes in and out under its own name. Names that HTTP or gRPC itself needs can't be passed, whatever the settings say: they
would change what the message around them is. What a service sends is held to what a header may hold: HTTP/2 would carry a line
break in a value, which must not come to an HTTP/1.1 client.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from gateway.errors import FieldError, GatewayError

VALUE_LIMIT: Final = 8192
# Values of one answer together.
ANSWER_LIMIT: Final = 16384

_NAME = re.compile(r"[a-z0-9_.-]{1,128}")
_VALUE = re.compile(r"[\x20-\x7e]*")
# What frames a message, on either side, or is of one connection (RFC 9110 §7.6.1), or makes an answer another one.
_OURS: Final = frozenset(
    {
        *("connection", "content-encoding", "content-length", "content-range", "content-type", "date", "expect", "host", "keep-alive"),
        *("location", "proxy-authenticate", "proxy-authorization", "proxy-connection", "retry-after", "server", "te", "trailer"),
        *("transfer-encoding", "upgrade", "user-agent", "vary", "accept-ranges", "cache-control", "content-location", "incremental"),
        *("server-timing", "traceparent", "tracestate", "www-authenticate", "x-accel-buffering", "x-request-id"),
    }
)
_OUR_PREFIXES: Final = ("grpc-", "access-control-", "sec-", "ratelimit", ":")


def passed_name(text: str) -> str:
    """Return the name of a header or metadata entry that may be passed, in lower case.

    Raises:
        ValueError: it may not be.
    """
    name = text.lower()
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{text[:60]!r} is no name of metadata: letters, digits, - _ . and at most 128 of them")
    if name in _OURS or name.startswith(_OUR_PREFIXES):
        raise ValueError(f"{text!r} can't be passed: HTTP, gRPC or the gateway itself says something by it")
    return name


def metadata_of(headers: Iterable[tuple[bytes, bytes]], allowed: Collection[str]) -> list[tuple[str, str]]:
    """Return the request's headers that are `allowed`, as metadata and in order; a repeated one is there as often.

    Raises:
        GatewayError: `invalid-option`: a value is no text of metadata, or a `-bin` header no base64.
    """
    found = []
    for raw_name, raw_value in headers if allowed else ():
        name = raw_name.decode("latin-1").lower()
        if name not in allowed:
            continue
        value = raw_value.decode("latin-1")
        problem = _wrong(name, value)
        if problem:
            raise GatewayError("invalid-option", f"The header {name} {problem}", errors=[FieldError(name, problem)])
        found.append((name, value))
    return found


def headers_of(metadata: Mapping[str, str], allowed: Collection[str]) -> Sequence[tuple[str, str]]:
    """Return what of an answer's metadata is `allowed` and can stand in a header; at most ANSWER_LIMIT in all."""
    found: list[tuple[str, str]] = []
    size = 0
    for name, value in metadata.items() if allowed else ():
        if name in allowed and _VALUE.fullmatch(value) is not None:
            size += len(name) + len(value)
            if size > ANSWER_LIMIT:
                break
            found.append((name, value.strip(" ")))
    return found


def _wrong(name: str, value: str) -> str:
    """Return what is wrong with a value; empty for nothing."""
    if len(value) > VALUE_LIMIT:
        return f"has {len(value)} characters; the service takes {VALUE_LIMIT}"
    if _VALUE.fullmatch(value) is None:
        return "has characters that gRPC metadata can't have; allowed: printable ASCII"
    if name.endswith("-bin"):
        try:
            base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            return "is binary metadata, so it has to be base64"
    return ""
