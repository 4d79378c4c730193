"""What a client raises: a class for each problem type that a gateway answers with, and for what no gateway says.

    ClientError
    ├── NotReachable             nobody answers at the URL
    ├── StreamLost               a stream was cut, and could not be resumed in the time for that
    ├── ChunksLost               a range of a run's chunks can't be delivered any more
    └── GatewayProblem           a problem document (RFC 9457), as an HTTP status or as a run's end
        ├── InvalidRequest       InvalidArguments, InvalidOption, InvalidBody, InvalidSession, IdempotencyConflict,
        │                        UnsupportedMediaType, NotAcceptable, MalformedRequest, CredentialConflict
        ├── Unauthenticated      InvalidCredential, AuthExpired
        ├── PermissionDenied     ScopeMissing, OriginNotAllowed, HostNotAllowed
        ├── NotFound             ToolNotFound, RunNotFound, RunExpired, SessionNotFound, PoolNotFound, RouteNotFound
        ├── NotSupported         ToolNotStreaming, ToolStreams, MethodNotAllowed
        ├── LimitExceeded        TooManyStreams, QuotaExceeded, HeadTooLarge, BodyTooLarge, QueryTooLong, ResultTooLarge, ChunkTooLarge
        ├── Unavailable          PoolSaturated, QueueTimeout, WorkerBusy, NoWorkersAvailable, SessionWorkerUnavailable,
        │                        LogUnavailable, AuthUnavailable, MemoryPressure, TooManyConnections, ShuttingDown, OwnerLost,
        │                        WorkerLost, SlowReader
        ├── DeadlineExceeded     WorkerTimeout, RequestTimeout
        ├── RunCancelled         somebody cancelled the run, or its last reader left
        ├── ToolFailed           the tool's own exception: `error_type`, `details`
        └── InternalError

A problem of a type that is younger than this client is an instance of the group that its gRPC code belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.errors import CODES, Code, FieldError

_TYPE_PREFIX = "/problems/"


class ClientError(Exception):
    """Whatever a client raises on purpose."""


class NotReachable(ClientError):
    """Nobody answers at the URL, or not in time. `detail` says what the network did."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(f"{url}: {detail}")
        self.url = url
        self.detail = detail


class StreamLost(ClientError):
    """A stream was cut without an end and was not resumed; the run may go on or have ended, nobody knows here.

    `last_event_id` is the place to go on from, None where not even the start was seen; `attempts` were made to come back.
    """

    def __init__(self, detail: str, *, last_event_id: str | None, attempts: int) -> None:
        place = "before its start" if last_event_id is None else f"after {last_event_id}"
        super().__init__(f"the stream was cut {place} and not resumed in {attempts} attempts: {detail}")
        self.detail = detail
        self.last_event_id = last_event_id
        self.attempts = attempts


class ChunksLost(ClientError):
    """Chunks `first` to `last` can't be delivered: they were `evicted`, or this reader was a `slow_consumer`."""

    def __init__(self, first: int, last: int, reason: str) -> None:
        super().__init__(f"chunks {first} to {last} can't be delivered: {reason}")
        self.first = first
        self.last = last
        self.reason = reason


class GatewayProblem(ClientError):
    """What the gateway says is wrong.

    `problem` is the last part of the document's type, `status` the HTTP status that belongs to it, `code` the gRPC code, `errors` the
    wrong fields. `retryable`: the same request may succeed later, at the earliest in `retry_after_s` seconds where that was said.
    `document` is all of it, with the members that belong to one type only.
    """

    # The problem type that a class is for; a group has none of its own.
    slug: ClassVar[str] = ""

    def __init__(self, document: Mapping[str, Any], *, retry_after_s: float | None = None) -> None:
        self.document = dict(document)
        self.problem = str(document.get("type", "")).removeprefix(_TYPE_PREFIX)
        self.title = str(document.get("title", self.problem))
        self.detail = str(document.get("detail", ""))
        self.status = _status(document)
        self.code = _code(document, self.status)
        self.retryable = bool(document.get("retryable", False))
        self.retry_after_s = retry_after_s
        self.errors = tuple(
            FieldError(str(entry.get("field")), str(entry.get("detail")))
            for entry in document.get("errors") or ()
            if isinstance(entry, dict)
        )
        super().__init__(f"{self.title}: {self.detail}" if self.detail else self.title)

    def __init_subclass__(cls) -> None:
        if "slug" in vars(cls):
            _BY_SLUG[cls.slug] = cls


_BY_SLUG: dict[str, type[GatewayProblem]] = {}


class InvalidRequest(GatewayProblem):
    """The request can't be what was meant."""


class InvalidArguments(InvalidRequest):
    """The arguments do not fit the tool's schema; `errors` names each field."""

    slug = "invalid-arguments"


class InvalidOption(InvalidRequest):
    """An option is unknown or has a wrong value; the detail says what is allowed."""

    slug = "invalid-option"


class InvalidBody(InvalidRequest):
    """The body is no JSON object."""

    slug = "invalid-body"


class InvalidSession(InvalidRequest):
    """The session id has a wrong form."""

    slug = "invalid-session"


class IdempotencyConflict(InvalidRequest):
    """The idempotency key came with another request before."""

    slug = "idempotency-conflict"


class UnsupportedMediaType(InvalidRequest):
    """The body's media type is none that the gateway reads."""

    slug = "unsupported-media-type"


class NotAcceptable(InvalidRequest):
    """None of the media types asked for is offered."""

    slug = "not-acceptable"


class MalformedRequest(InvalidRequest):
    """The request is no valid HTTP."""

    slug = "invalid-request"


class CredentialConflict(InvalidRequest):
    """The request has more than one credential."""

    slug = "credential-conflict"


class Unauthenticated(GatewayProblem):
    """There is no credential, or one that doesn't count (any more)."""

    slug = "unauthenticated"


class InvalidCredential(Unauthenticated):
    """The credential is none that the gateway knows."""

    slug = "invalid-credential"


class AuthExpired(Unauthenticated):
    """The credential has expired; a stream that ends so can be gone on with under a new one."""

    slug = "auth-expired"


class PermissionDenied(GatewayProblem):
    """The credential doesn't allow this."""


class ScopeMissing(PermissionDenied):
    """The credential does not reach so far; the detail names the scope that is needed."""

    slug = "scope-missing"


class OriginNotAllowed(PermissionDenied):
    """The web page's origin is not allowed."""

    slug = "origin-not-allowed"


class HostNotAllowed(PermissionDenied):
    """The URL's host is none that the gateway answers for."""

    slug = "host-not-allowed"


class NotFound(GatewayProblem):
    """What the request names isn't there."""


class ToolNotFound(NotFound):
    """No pool offers the tool."""

    slug = "tool-not-found"


class RunNotFound(NotFound):
    """There is no such run."""

    slug = "run-not-found"


class RunExpired(NotFound):
    """The run is over and forgotten; it was not started again."""

    slug = "run-expired"


class SessionNotFound(NotFound):
    """There is no such session."""

    slug = "session-not-found"


class PoolNotFound(NotFound):
    """There is no such pool."""

    slug = "pool-not-found"


class RouteNotFound(NotFound):
    """Nothing is served at the path: is the URL a gateway's?"""

    slug = "route-not-found"


class NotSupported(GatewayProblem):
    """What is named can't do this."""


class ToolNotStreaming(NotSupported):
    """The tool has a single result: `call` it."""

    slug = "tool-not-streaming"


class ToolStreams(NotSupported):
    """The tool has no single result: `stream` it."""

    slug = "tool-streams"


class MethodNotAllowed(NotSupported):
    """The method is not allowed at the path."""

    slug = "method-not-allowed"


class LimitExceeded(GatewayProblem):
    """A limit is reached; the detail names it."""


class TooManyStreams(LimitExceeded):
    """As many runs are open as may be."""

    slug = "too-many-streams"


class QuotaExceeded(LimitExceeded):
    """A limit of the caller's is reached."""

    slug = "quota-exceeded"


class HeadTooLarge(LimitExceeded):
    """The request's head is too large."""

    slug = "head-too-large"


class BodyTooLarge(LimitExceeded):
    """The arguments are too large."""

    slug = "body-too-large"


class QueryTooLong(LimitExceeded):
    """The query string is too long."""

    slug = "query-too-long"


class ResultTooLarge(LimitExceeded):
    """The result is too large for one JSON answer: `stream` it, or read the run's events."""

    slug = "result-too-large"


class ChunkTooLarge(LimitExceeded):
    """The tool has yielded a chunk over the limit."""

    slug = "chunk-too-large"


class Unavailable(GatewayProblem):
    """It can't be done now; later it may."""


class PoolSaturated(Unavailable):
    """The pool's queue is full."""

    slug = "pool-saturated"


class QueueTimeout(Unavailable):
    """No worker was free in time."""

    slug = "queue-timeout"


class WorkerBusy(Unavailable):
    """The session's worker is busy, and the affinity says not to wait for it."""

    slug = "worker-busy"


class NoWorkersAvailable(Unavailable):
    """The pool has no worker that can be used."""

    slug = "no-workers-available"


class SessionWorkerUnavailable(Unavailable):
    """The session's worker is gone, and the affinity allows no other."""

    slug = "session-worker-unavailable"


class LogUnavailable(Unavailable):
    """The log that the gateways share can't be reached."""

    slug = "log-unavailable"


class AuthUnavailable(Unavailable):
    """The credential can't be checked now."""

    slug = "auth-unavailable"


class MemoryPressure(Unavailable):
    """The gateway is short of memory."""

    slug = "memory-pressure"


class TooManyConnections(Unavailable):
    """As many connections are open as may be."""

    slug = "too-many-connections"


class ShuttingDown(Unavailable):
    """The gateway is shutting down."""

    slug = "shutting-down"


class OwnerLost(Unavailable):
    """The gateway that executed the run was lost, and the run with it."""

    slug = "owner-lost"


class WorkerLost(Unavailable):
    """The worker was lost, and the run with it."""

    slug = "worker-lost"


class SlowReader(Unavailable):
    """The run's reader made no progress."""

    slug = "slow-reader"


class DeadlineExceeded(GatewayProblem):
    """A deadline has passed; `document["deadline"]` says which where there are several."""


class WorkerTimeout(DeadlineExceeded):
    """The run took longer than it may."""

    slug = "worker-timeout"


class RequestTimeout(DeadlineExceeded):
    """The request did not arrive in time."""

    slug = "request-timeout"


class RunCancelled(GatewayProblem):
    """The run was cancelled; the detail says by whom."""

    slug = "cancelled"


class ToolFailed(GatewayProblem):
    """The tool has failed, with an exception of its own."""

    slug = "tool-error"

    @property
    def error_type(self) -> str | None:
        """The Python exception's class name; None where the worker didn't say."""
        return self.document.get("error_type")

    @property
    def details(self) -> Any:
        """What the tool's `ToolError` carried; None for any other exception."""
        return self.document.get("details")


class InternalError(GatewayProblem):
    """A mistake of the gateway's own; its log says more."""

    slug = "internal"


_BY_CODE: Mapping[Code, type[GatewayProblem]] = {
    Code.CANCELLED: RunCancelled,
    Code.INVALID_ARGUMENT: InvalidRequest,
    Code.OUT_OF_RANGE: InvalidRequest,
    Code.FAILED_PRECONDITION: InvalidRequest,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.NOT_FOUND: NotFound,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.RESOURCE_EXHAUSTED: LimitExceeded,
    Code.ABORTED: Unavailable,
    Code.UNAVAILABLE: Unavailable,
    Code.UNIMPLEMENTED: NotSupported,
    Code.UNAUTHENTICATED: Unauthenticated,
    Code.INTERNAL: InternalError,
}


def problem_of(document: Mapping[str, Any], *, retry_after_s: float | None = None) -> GatewayProblem:
    """Return the error for a problem document: of its type's class, else of its code's group."""
    slug = str(document.get("type", "")).removeprefix(_TYPE_PREFIX)
    kind = _BY_SLUG.get(slug) or _BY_CODE.get(_code(document, _status(document)), GatewayProblem)
    return kind(document, retry_after_s=retry_after_s)


def _status(document: Mapping[str, Any]) -> int:
    status = document.get("status")
    return status if isinstance(status, int) else 0


def _code(document: Mapping[str, Any], status: int) -> Code:
    """Return the gRPC code that a document names; where it names none, as a proxy's own page doesn't, its status's."""
    try:
        return Code[str(document.get("code"))]
    except KeyError:
        return next((code for code, row in CODES.items() if row.http_status == status), Code.UNKNOWN)
