"""What a client raises: a class for each problem type that a gateway answers with, and for what no gateway says.

    ClientError
    ├── NotReachable             nobody answers at the URL
    ├── StreamLost               a stream was cut, and could not be resumed in the time for that
    ├── ChunksLost               a range of a run's chunks can't be delivered any more
    └── GatewayProblem           a problem document (RFC 9457), as an HTTP status or as a run's end
        ├── InvalidRequest       InvalidArguments, InvalidOption, InvalidBody, InvalidMessage, InvalidSession,
        │                        IdempotencyConflict, UnsupportedMediaType, NotAcceptable, MalformedRequest, CredentialConflict
        ├── Unauthenticated      InvalidCredential, AuthExpired
        ├── PermissionDenied     ScopeMissing, OriginNotAllowed, HostNotAllowed
        ├── NotFound             ToolNotFound, RpcNotFound, RunNotFound, RunExpired, SessionNotFound, PoolNotFound, RouteNotFound
        ├── NotSupported         ToolNotStreaming, ToolStreams, RpcNeedsSocket, MethodNotAllowed
        ├── LimitExceeded        TooManyStreams, QuotaExceeded, HeadTooLarge, BodyTooLarge, QueryTooLong, ResultTooLarge, ChunkTooLarge
        ├── Unavailable          PoolSaturated, QueueTimeout, WorkerBusy, NoWorkersAvailable, SessionWorkerUnavailable,
        │                        LogUnavailable, AuthUnavailable, MemoryPressure, TooManyConnections, ShuttingDown, OwnerLost,
        │                        WorkerLost, ServiceLost, SlowReader
        ├── DeadlineExceeded     WorkerTimeout, RequestTimeout
        ├── RunCancelled         somebody cancelled the run, or its last reader left
        ├── ToolFailed           the tool's own exception: `error_type`, `details`; RpcFailed: a gRPC service's own status
        └── InternalError        UnreadableAnswer

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

    # The problem type that a class is for; empty for a group.
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

    def __init_subclass__(cls, slug: str = "") -> None:
        cls.slug = slug
        if slug:
            _BY_SLUG[slug] = cls


_BY_SLUG: dict[str, type[GatewayProblem]] = {}


class InvalidRequest(GatewayProblem):
    """The request can't be what was meant."""


class InvalidArguments(InvalidRequest, slug="invalid-arguments"):
    """The arguments do not fit the tool's schema; `errors` names each field."""


class InvalidOption(InvalidRequest, slug="invalid-option"):
    """An option is unknown or has a wrong value; the detail says what is allowed."""


class InvalidBody(InvalidRequest, slug="invalid-body"):
    """The body is no JSON object."""


class InvalidMessage(InvalidRequest, slug="invalid-message"):
    """The message for a gRPC service does not fit its type; `errors` names each field."""


class InvalidSession(InvalidRequest, slug="invalid-session"):
    """The session id has a wrong form."""


class IdempotencyConflict(InvalidRequest, slug="idempotency-conflict"):
    """The idempotency key came with another request before."""


class UnsupportedMediaType(InvalidRequest, slug="unsupported-media-type"):
    """The body's media type is none that the gateway reads."""


class NotAcceptable(InvalidRequest, slug="not-acceptable"):
    """None of the media types asked for is offered."""


class MalformedRequest(InvalidRequest, slug="invalid-request"):
    """The request is no valid HTTP."""


class CredentialConflict(InvalidRequest, slug="credential-conflict"):
    """The request has more than one credential."""


class Unauthenticated(GatewayProblem, slug="unauthenticated"):
    """There is no credential, or one that doesn't count (any more)."""


class InvalidCredential(Unauthenticated, slug="invalid-credential"):
    """The credential is none that the gateway knows."""


class AuthExpired(Unauthenticated, slug="auth-expired"):
    """The credential has expired; a stream that ends so can be gone on with under a new one."""


class PermissionDenied(GatewayProblem):
    """The credential doesn't allow this."""


class ScopeMissing(PermissionDenied, slug="scope-missing"):
    """The credential does not reach so far; the detail names the scope that is needed."""


class OriginNotAllowed(PermissionDenied, slug="origin-not-allowed"):
    """The web page's origin is not allowed."""


class HostNotAllowed(PermissionDenied, slug="host-not-allowed"):
    """The URL's host is none that the gateway answers for."""


class NotFound(GatewayProblem):
    """What the request names isn't there."""


class ToolNotFound(NotFound, slug="tool-not-found"):
    """No pool offers the tool."""


class RpcNotFound(NotFound, slug="rpc-not-found"):
    """No gRPC service offers the method; the detail names the nearest one."""


class RunNotFound(NotFound, slug="run-not-found"):
    """There is no such run."""


class RunExpired(NotFound, slug="run-expired"):
    """The run is over and forgotten; it was not started again."""


class SessionNotFound(NotFound, slug="session-not-found"):
    """There is no such session."""


class PoolNotFound(NotFound, slug="pool-not-found"):
    """There is no such pool."""


class RouteNotFound(NotFound, slug="route-not-found"):
    """Nothing is served at the path: is the URL a gateway's?"""


class NotSupported(GatewayProblem):
    """What is named can't do this."""


class ToolNotStreaming(NotSupported, slug="tool-not-streaming"):
    """The tool has a single result: `call` it."""


class ToolStreams(NotSupported, slug="tool-streams"):
    """The tool has no single result: `stream` it."""


class RpcNeedsSocket(NotSupported, slug="rpc-needs-socket"):
    """The method takes a stream of messages: the detail names the WebSocket for it."""


class MethodNotAllowed(NotSupported, slug="method-not-allowed"):
    """The method is not allowed at the path."""


class LimitExceeded(GatewayProblem):
    """A limit is reached; the detail names it."""


class TooManyStreams(LimitExceeded, slug="too-many-streams"):
    """As many runs are open as may be."""


class QuotaExceeded(LimitExceeded, slug="quota-exceeded"):
    """A limit of the caller's is reached."""


class HeadTooLarge(LimitExceeded, slug="head-too-large"):
    """The request's head is too large."""


class BodyTooLarge(LimitExceeded, slug="body-too-large"):
    """The arguments are too large."""


class QueryTooLong(LimitExceeded, slug="query-too-long"):
    """The query string is too long."""


class ResultTooLarge(LimitExceeded, slug="result-too-large"):
    """The result is too large for one JSON answer: `stream` it, or read the run's events."""


class ChunkTooLarge(LimitExceeded, slug="chunk-too-large"):
    """The tool has yielded a chunk over the limit."""


class Unavailable(GatewayProblem):
    """It can't be done now; later it may."""


class PoolSaturated(Unavailable, slug="pool-saturated"):
    """The pool's queue is full."""


class QueueTimeout(Unavailable, slug="queue-timeout"):
    """No worker was free in time."""


class WorkerBusy(Unavailable, slug="worker-busy"):
    """The session's worker is busy, and the affinity says not to wait for it."""


class NoWorkersAvailable(Unavailable, slug="no-workers-available"):
    """The pool has no worker that can be used."""


class SessionWorkerUnavailable(Unavailable, slug="session-worker-unavailable"):
    """The session's worker is gone, and the affinity allows no other."""


class LogUnavailable(Unavailable, slug="log-unavailable"):
    """The log that the gateways share can't be reached."""


class AuthUnavailable(Unavailable, slug="auth-unavailable"):
    """The credential can't be checked now."""


class MemoryPressure(Unavailable, slug="memory-pressure"):
    """The gateway is short of memory."""


class TooManyConnections(Unavailable, slug="too-many-connections"):
    """As many connections are open as may be."""


class ShuttingDown(Unavailable, slug="shutting-down"):
    """The gateway is shutting down."""


class OwnerLost(Unavailable, slug="owner-lost"):
    """The gateway that executed the run was lost, and the run with it."""


class WorkerLost(Unavailable, slug="worker-lost"):
    """The worker was lost, and the run with it."""


class ServiceLost(Unavailable, slug="service-lost"):
    """The connection to the gRPC service was lost, and the run with it."""


class SlowReader(Unavailable, slug="slow-reader"):
    """The run's reader made no progress."""


class DeadlineExceeded(GatewayProblem):
    """A deadline has passed; `document["deadline"]` says which where there are several."""


class WorkerTimeout(DeadlineExceeded, slug="worker-timeout"):
    """The run took longer than it may."""


class RequestTimeout(DeadlineExceeded, slug="request-timeout"):
    """The request did not arrive in time."""


class RunCancelled(GatewayProblem, slug="cancelled"):
    """The run was cancelled; the detail says by whom."""


class ToolFailed(GatewayProblem, slug="tool-error"):
    """The tool has failed, with an exception of its own."""

    @property
    def error_type(self) -> str | None:
        """The Python exception's class name; None where the worker didn't say."""
        return self.document.get("error_type")

    @property
    def details(self) -> Any:
        """What the tool's `ToolError` carried; None for any other exception."""
        return self.document.get("details")


class RpcFailed(GatewayProblem, slug="rpc-error"):
    """A gRPC service has ended the call with a status of its own: `code`; its details are in `document["details"]`."""


class InternalError(GatewayProblem, slug="internal"):
    """A mistake of the gateway's own; its log says more."""


class UnreadableAnswer(InternalError, slug="unreadable-answer"):
    """A gRPC service has answered what is no message of the type that it should be."""


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
    said = Code.__members__.get(str(document.get("code")))
    return next((code for code, row in CODES.items() if row.http_status == status), Code.UNKNOWN) if said is None else said
