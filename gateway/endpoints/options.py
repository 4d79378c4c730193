"""The options of a request: the `_name` parameters of a query string, and the members of a WebSocket `subscribe`.

Options never mix with arguments. An unknown one is an error that names the known ones and the nearest of them.
Source: docs of the protocol, section 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.call import Affinity
from gateway.errors import GatewayError
from gateway.runs.policy import (
    CANCEL,
    READ_ALL,
    Deadlines,
    OnDisconnect,
    Overflow,
    ReaderOptions,
    Role,
    RunPolicy,
    invalid_option,
    parse_choice,
)

# Of one reader; these alone are for a run that there is already.
READER_OPTIONS = ("_from", "_role", "_overflow")
# Of the run: which, where, how long.
RUN_OPTIONS = (
    "_session",
    "_pool",
    "_timeout_ms",
    "_queue_timeout_ms",
    "_first_chunk_timeout_ms",
    "_idle_timeout_ms",
    "_affinity",
    "_on_disconnect",
)
OPTIONS = (*RUN_OPTIONS, *READER_OPTIONS)
# Of a request that starts a run of its own and reads it from the beginning.
STARTING_OPTIONS = (*RUN_OPTIONS, "_overflow")
# Said by a reader of itself, not of what is to be run: two requests that differ in these ask for the same run.
_OF_THE_READER_ALONE = ("_from", "_role")
META_PREFIX = "_meta."
META_VALUE_LIMIT = 4096

# grpc-timeout: at most 8 digits and a unit (gRPC over HTTP/2, "Requests").
_GRPC_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


@dataclass(frozen=True, slots=True)
class OptionLimits:
    """What the settings allow.

    The default and the longest time-out, which `_meta.` keys may pass, how far a reader may lag, the longest grace.
    """

    timeout_s: float = 300.0
    timeout_limit_s: float = 3600.0
    meta_keys: frozenset[str] = frozenset()
    lag_bytes: int = 256 * 1024
    grace_limit_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The options of one request, checked.

    `given`: those that say what is to be run, as they were sent; for an idempotency key's fingerprint. `begins`: `_from`, as it was sent.
    """

    session_id: str | None
    pool: str | None
    timeout_s: float
    affinity: Affinity | None
    policy: RunPolicy
    reader: ReaderOptions = READ_ALL
    metadata: Mapping[str, str] = field(default_factory=dict)
    given: tuple[tuple[str, str], ...] = ()
    begins: str | None = None


def read_options(
    options: Iterable[tuple[str, str]],
    limits: OptionLimits,
    grpc_timeout: str | None = None,
    *,
    names: Sequence[str] = OPTIONS,
    on_disconnect: OnDisconnect = CANCEL,
) -> CallOptions:
    """Return the checked options of a request. `grpc_timeout` is the Grpc-Timeout header; `_timeout_ms` goes before it.

    `names` are the options that this kind of request has, `on_disconnect` what it means without `_on_disconnect`.

    Raises:
        GatewayError: `invalid-option`, naming the option and what is allowed.
    """
    options = list(options)
    if not options and grpc_timeout is None:
        # As most requests have it: read once, as long as the limits are the same.
        known = _plain.get(on_disconnect.kind)
        if known is None or known[0] is not limits or known[1] is not on_disconnect:
            known = _plain[on_disconnect.kind] = limits, on_disconnect, _read([], limits, None, OPTIONS, on_disconnect)
        return known[2]
    return _read(options, limits, grpc_timeout, names, on_disconnect)


# The options of a request that has none, by the kind of `on_disconnect`: what they were read with, and they.
_plain: dict[str, tuple[OptionLimits, OnDisconnect, CallOptions]] = {}


def _read(
    options: list[tuple[str, str]], limits: OptionLimits, grpc_timeout: str | None, names: Sequence[str], on_disconnect: OnDisconnect
) -> CallOptions:
    given: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name, value in options:
        if name.startswith(META_PREFIX) and names is not READER_OPTIONS and name.removeprefix(META_PREFIX) not in metadata:
            metadata[_meta_key(name, limits)] = _meta_value(name, value)
        elif name.startswith(META_PREFIX) and names is not READER_OPTIONS:
            raise invalid_option(name[:60], "is given twice")
        elif name not in names:
            raise _unknown(name, names)
        elif name in given:
            raise invalid_option(name, "is given twice")
        else:
            given[name] = value
    if "_on_disconnect" in given:
        on_disconnect = OnDisconnect.parse("_on_disconnect", given["_on_disconnect"], limit_s=limits.grace_limit_s)
    deadlines = Deadlines(*(_deadline_s(given, f"_{name}_timeout_ms", limits) for name in ("queue", "first_chunk", "idle")))
    said = [pair for pair in options if pair[0] not in _OF_THE_READER_ALONE]
    return CallOptions(
        session_id=given.get("_session"),
        pool=given.get("_pool"),
        timeout_s=_timeout_s(given.get("_timeout_ms"), grpc_timeout, limits),
        affinity=parse_choice("_affinity", given["_affinity"], Affinity) if "_affinity" in given else None,
        policy=RunPolicy(on_disconnect, deadlines),
        reader=_reader(given, limits),
        metadata=metadata,
        given=tuple(said if grpc_timeout is None else [*said, ("grpc-timeout", grpc_timeout)]),
        begins=given.get("_from"),
    )


def _unknown(name: str, names: Sequence[str]) -> GatewayError:
    if name in OPTIONS:
        return invalid_option(name, f"has no meaning for this kind of request; known here: {', '.join(names)}")
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    meta = "" if names is READER_OPTIONS else f", {META_PREFIX}<key>"
    return invalid_option(name[:60], f"is no option; {hint}known: {', '.join(names)}{meta}")


def _reader(given: Mapping[str, str], limits: OptionLimits) -> ReaderOptions:
    return ReaderOptions(
        role=parse_choice("_role", given.get("_role", Role.SUBSCRIBER), Role),
        overflow=parse_choice("_overflow", given.get("_overflow", Overflow.BLOCK), Overflow),
        lag_bytes=limits.lag_bytes,
    )


def reader_from(reader: ReaderOptions, begins: str | None) -> ReaderOptions:
    """Return the options of a reader that begins where `_from` says: `start`, `live`, or after the chunk of that number.

    Raises:
        GatewayError: `invalid-option`; an event id is one as well, but says which run, and is not read here.
    """
    if begins is None or begins == "start":
        return reader
    if begins == "live":
        return replace(reader, live=True)
    if not (begins.isascii() and begins.isdigit() and len(begins) <= 15):
        raise invalid_option("_from", f"is {begins[:60]!r}; allowed: start, live, a chunk's number, or an event id, <run>.<number>")
    return replace(reader, after=int(begins))


def _deadline_s(given: Mapping[str, str], name: str, limits: OptionLimits) -> float | None:
    return _milliseconds(name, given[name], limits.timeout_limit_s) if name in given else None


def _timeout_s(timeout_ms: str | None, grpc_timeout: str | None, limits: OptionLimits) -> float:
    if timeout_ms is not None:
        return _milliseconds("_timeout_ms", timeout_ms, limits.timeout_limit_s)
    if grpc_timeout is None:
        return limits.timeout_s
    match = _GRPC_TIMEOUT.fullmatch(grpc_timeout)
    if match is None or int(match[1]) == 0:
        raise invalid_option("Grpc-Timeout", "is up to 8 digits, not all 0, and one of H M S m u n, such as 30S")
    # As a proxy does with grpc-timeout: a longer wish is cut to what this hop allows.
    return min(int(match[1]) * _GRPC_UNITS_S[match[2]], limits.timeout_limit_s)


def _milliseconds(name: str, text: str, limit_s: float) -> float:
    limit_ms = int(limit_s * 1000)
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and 1 <= int(text) <= limit_ms):
        raise invalid_option(name, f"is {text[:40]!r}; allowed: a whole number of milliseconds from 1 to {limit_ms}")
    return int(text) / 1000


def _meta_key(name: str, limits: OptionLimits) -> str:
    key = name.removeprefix(META_PREFIX)
    # binary_format:* makes a real Snakepit worker unpickle what the caller sent; no setting may allow it.
    if key.startswith("binary_format:") or key not in limits.meta_keys:
        allowed = ", ".join(sorted(limits.meta_keys)) or "none (the settings name no key)"
        raise invalid_option(name[:60], f"may not be set; allowed keys: {allowed}")
    return key


def _meta_value(name: str, value: str) -> str:
    if len(value) > META_VALUE_LIMIT:
        raise invalid_option(name, f"has {len(value)} characters, the limit is {META_VALUE_LIMIT}")
    return value
