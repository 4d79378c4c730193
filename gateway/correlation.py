"""What ties a request to other systems' records of it: its request id, and the trace that it is part of.

Read once, from the request's headers, by whichever front door it comes in at; stands in its ASGI scope (`correlation_of`) and in
its ToolCall, goes on to the worker as gRPC metadata, and into logs and problem documents. Whatever a client sends is checked and
bounded, since it is said again in all these places; what doesn't fit is as if it had not come.
Standards: W3C Trace Context; `X-Request-Id` is everybody's habit; CORRELATION_HEADER is what Snakepit's workers read.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.events import Ended

REQUEST_ID_HEADER: Final = b"x-request-id"
CORRELATION_HEADER: Final = "x-snakepit-correlation-id"
# Where the correlation stands in an ASGI scope.
SCOPE_KEY: Final = "gateway.correlation"
TRACESTATE_LIMIT: Final = 512

# Looked for in every request's headers, most of which are others.
_TELLING: Final = frozenset((REQUEST_ID_HEADER, b"traceparent", b"tracestate"))
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:+/=@-]{1,128}")
# Version 00 has exactly these four fields, a later one may have more behind them; ff is none.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]{0,200})?")
_TRACESTATE = re.compile(r"[ -~]+")

# Unique among all gateways by the first part and in this process by the second: a random id for each request would cost ten times that.
_ours = secrets.token_hex(6)
_numbers = itertools.count(1)


class Correlation(NamedTuple):
    """`traceparent` is valid, or None where the request is part of no trace. `tracestate` is only there with it."""

    request_id: str = ""
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace's id: 32 hexadecimal digits."""
        return None if self.traceparent is None else self.traceparent[3:35]

    def metadata(self) -> list[tuple[str, str]]:
        """Return what goes to the worker with the call."""
        told = [(CORRELATION_HEADER, self.request_id)] if self.request_id else []
        if self.traceparent is not None:
            told.append(("traceparent", self.traceparent))
            if self.tracestate is not None:
                told.append(("tracestate", self.tracestate))
        return told


UNCORRELATED: Final = Correlation()


class Trace(Protocol):
    """What a run tells whoever traces it (telemetry/tracing.py): what happens once, and readers and gaps; nothing for each batch."""

    def queued(self, position: int, depth: int) -> None:
        """It waits in its pool's queue."""

    def leased(self, run: str, pool: str, worker: str) -> None:
        """The run of this id has a worker of this pool."""

    def first_chunk(self) -> None:
        """The first chunk has come."""

    def gap(self, first: int, last: int, reason: str) -> None:
        """A reader was told of a gap."""

    def reader(self, *, joined: bool, role: str) -> None:
        """A reader came, or left."""

    def ended(self, end: Ended, *, cause: str | None, size_bytes: int) -> None:
        """It is over. `cause` is why we ended it, None where it ended by itself; `size_bytes` its chunks, as JSON."""

    def refused(self, error: GatewayError) -> None:
        """It never began."""


def new_request_id() -> str:
    """Return an id for a request that has brought none."""
    return f"{_ours}-{next(_numbers):x}"


def correlate(request_id: str | None, traceparent: str | None = None, tracestate: str | None = None) -> Correlation:
    """Return the correlation of a request that has sent these."""
    if request_id is None or _REQUEST_ID.fullmatch(request_id) is None:
        request_id = new_request_id()
    if traceparent is None or not is_traceparent(traceparent):
        return Correlation(request_id)
    if tracestate is not None and (len(tracestate) > TRACESTATE_LIMIT or _TRACESTATE.fullmatch(tracestate) is None):
        tracestate = None
    return Correlation(request_id, traceparent, tracestate)


def is_traceparent(text: str) -> bool:
    """Return whether a text is a valid `traceparent` (W3C Trace Context §3.2)."""
    match = _TRACEPARENT.fullmatch(text)
    return match is not None and (match[1] != "00" or match[5] is None)


def correlation_of(scope: Any) -> Correlation:
    """Return the correlation of the request with this ASGI scope; the same one each time."""
    known: Correlation | None = scope.get(SCOPE_KEY)
    if known is None:
        known = scope[SCOPE_KEY] = _from_headers(scope["headers"])
    return known


def from_metadata(metadata: Iterable[tuple[str, Any]], given: Mapping[str, str]) -> Correlation:
    """Return the correlation of a gRPC call, by Snakepit's rules.

    `given` is the request's own metadata, whose `correlation_id` goes first; even an empty one hides the headers. A call that brings
    no id that fits gets one as Snakepit makes them.
    """
    found = {key: value for key, value in metadata if isinstance(value, str)}
    request_id = given.get("correlation_id")
    if request_id is None:
        request_id = found.get(CORRELATION_HEADER) or found.get("x-request-id")
    if not request_id or _REQUEST_ID.fullmatch(request_id) is None:
        request_id = f"sp-{secrets.token_hex(12)}"
    return correlate(request_id, found.get("traceparent"), found.get("tracestate"))


def _from_headers(headers: Sequence[tuple[bytes, bytes]]) -> Correlation:
    request_id = traceparent = None
    states: list[str] = []
    for name, value in headers:
        if name not in _TELLING:
            continue
        if name == REQUEST_ID_HEADER:
            request_id = value.decode("latin-1")
        elif name == b"traceparent":
            # Two of them are none: nobody can say which one is meant.
            traceparent = value.decode("latin-1") if traceparent is None else ""
        elif name == b"tracestate":
            states.append(value.decode("latin-1"))
    if request_id is None and traceparent is None:
        return Correlation(new_request_id())
    return correlate(request_id, traceparent, ",".join(states) or None)
