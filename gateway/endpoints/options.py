"""The options of a request: the `_name` parameters of a query string, and the members of a WebSocket `subscribe`.

Options never mix with arguments. An unknown one is an error that names the known ones and the nearest of them.
Source: docs of the protocol, section 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from gateway.call import Affinity
from gateway.errors import FieldError, GatewayError
from gateway.runs.policy import OnDisconnect, Overflow, RunPolicy, parse_choice

OPTIONS = ("_session", "_pool", "_timeout_ms", "_idle_timeout_ms", "_affinity", "_on_disconnect", "_overflow")
META_PREFIX = "_meta."
META_VALUE_LIMIT = 4096

# grpc-timeout: at most 8 digits and a unit (gRPC over HTTP/2, "Requests").
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True, slots=True)
class OptionLimits:
    """What the settings allow: the default and the longest time-out, which `_meta.` keys may pass, a reader's lag."""

    timeout_s: float = 300.0
    timeout_limit_s: float = 3600.0
    meta_keys: frozenset[str] = frozenset()
    lag_bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The options of one request, checked."""

    session_id: str | None
    pool: str | None
    timeout_s: float
    affinity: Affinity | None
    policy: RunPolicy
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_options(options: Iterable[tuple[str, str]], limits: OptionLimits, grpc_timeout: str | None = None) -> CallOptions:
    """Return the checked options of a request. `grpc_timeout` is the Grpc-Timeout header; `_timeout_ms` goes before it.

    Raises:
        GatewayError: `invalid-option`, naming the option and what is allowed.
    """
    options = list(options)
    if not options and grpc_timeout is None:
        return _defaults(limits)
    return _read(options, limits, grpc_timeout)


@cache
def _defaults(limits: OptionLimits) -> CallOptions:
    """Return the options of a request that has none: most have none, and an app has one set of limits."""
    return _read([], limits, None)


def _read(options: list[tuple[str, str]], limits: OptionLimits, grpc_timeout: str | None) -> CallOptions:
    given: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name, value in options:
        if name.startswith(META_PREFIX) and name.removeprefix(META_PREFIX) not in metadata:
            metadata[_meta_key(name, limits)] = _meta_value(name, value)
        elif name.startswith(META_PREFIX):
            raise _invalid(name[:60], "is given twice")
        elif name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise _invalid(name[:60], f"is no option; {hint}known: {', '.join(OPTIONS)}, {META_PREFIX}<key>")
        elif name in given:
            raise _invalid(name, "is given twice")
        else:
            given[name] = value
    timeout_s = _timeout_s(given.get("_timeout_ms"), grpc_timeout, limits)
    idle = given.get("_idle_timeout_ms")
    return CallOptions(
        session_id=given.get("_session"),
        pool=given.get("_pool"),
        timeout_s=timeout_s,
        affinity=parse_choice("_affinity", given["_affinity"], Affinity) if "_affinity" in given else None,
        policy=RunPolicy(
            on_disconnect=parse_choice("_on_disconnect", given.get("_on_disconnect", OnDisconnect.CANCEL), OnDisconnect),
            overflow=parse_choice("_overflow", given.get("_overflow", Overflow.BLOCK), Overflow),
            lag_bytes=limits.lag_bytes,
            idle_timeout_s=None if idle is None else _milliseconds("_idle_timeout_ms", idle, limits.timeout_limit_s),
        ),
        metadata=metadata,
    )


def _timeout_s(timeout_ms: str | None, grpc_timeout: str | None, limits: OptionLimits) -> float:
    if timeout_ms is not None:
        return _milliseconds("_timeout_ms", timeout_ms, limits.timeout_limit_s)
    if grpc_timeout is None:
        return limits.timeout_s
    match = _GRPC_TIMEOUT.fullmatch(grpc_timeout)
    if match is None or int(match[1]) == 0:
        raise _invalid("Grpc-Timeout", "is up to 8 digits, not all 0, and one of H M S m u n, such as 30S")
    # As a proxy does with grpc-timeout: a longer wish is cut to what this hop allows.
    return min(int(match[1]) * _GRPC_UNITS_S[match[2]], limits.timeout_limit_s)


def _milliseconds(name: str, text: str, limit_s: float) -> float:
    limit_ms = int(limit_s * 1000)
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and 1 <= int(text) <= limit_ms):
        raise _invalid(name, f"is {text[:40]!r}; allowed: a whole number of milliseconds from 1 to {limit_ms}")
    return int(text) / 1000


def _meta_key(name: str, limits: OptionLimits) -> str:
    key = name.removeprefix(META_PREFIX)
    # binary_format:* makes a real Snakepit worker unpickle what the caller sent; no setting may allow it.
    if key.startswith("binary_format:") or key not in limits.meta_keys:
        allowed = ", ".join(sorted(limits.meta_keys)) or "none (the settings name no key)"
        raise _invalid(name[:60], f"may not be set; allowed keys: {allowed}")
    return key


def _meta_value(name: str, value: str) -> str:
    if len(value) > META_VALUE_LIMIT:
        raise _invalid(name, f"has {len(value)} characters, the limit is {META_VALUE_LIMIT}")
    return value


def _invalid(name: str, detail: str) -> GatewayError:
    return GatewayError("invalid-option", f"{name} {detail}", errors=[FieldError(name, detail)])
