"""The one vocabulary of errors: a code, a problem type, and how each front door says it.

Everything that can go wrong is a GatewayError. It names a row of PROBLEMS, which knows the gRPC code, the
HTTP status and whether trying again can help; CODES maps the bare gRPC codes that workers answer with.
Foreign errors are mapped where the foreign library is called (`raise … from exc`). Cancellation is not an error.

    GatewayError
    ├── ToolFailed      the tool (or its worker) answered with a status of its own
    ├── RpcFailed       a gRPC service did
    └── (all others are GatewayError itself: the problem type says which)

Sources: RFC 9457 (problem documents), google.rpc.Code, docs of the protocol, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from gateway.quota import Quota


class Code(IntEnum):
    """The gRPC status codes, by their numbers on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def from_wire(cls, number: int) -> Code:
        """Return the code for a number on the wire; an unassigned one is UNKNOWN, as gRPC says."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


class CodeRow(NamedTuple):
    """How one gRPC code is said over HTTP and WebSocket."""

    http_status: int
    ws_close: int
    title: str
    retryable: bool = False


CODES: Mapping[Code, CodeRow] = {
    Code.OK: CodeRow(200, 1000, "OK"),
    Code.CANCELLED: CodeRow(499, 1000, "Cancelled"),
    Code.UNKNOWN: CodeRow(500, 1011, "Unknown error"),
    Code.INVALID_ARGUMENT: CodeRow(400, 4400, "Invalid argument"),
    Code.DEADLINE_EXCEEDED: CodeRow(504, 1011, "Deadline exceeded"),
    Code.NOT_FOUND: CodeRow(404, 4400, "Not found"),
    Code.ALREADY_EXISTS: CodeRow(409, 4400, "Already exists"),
    Code.PERMISSION_DENIED: CodeRow(403, 4403, "Permission denied"),
    Code.RESOURCE_EXHAUSTED: CodeRow(429, 4413, "Resource exhausted", retryable=True),
    Code.FAILED_PRECONDITION: CodeRow(400, 4400, "Failed precondition"),
    Code.ABORTED: CodeRow(409, 1013, "Aborted", retryable=True),
    Code.OUT_OF_RANGE: CodeRow(400, 4400, "Out of range"),
    Code.UNIMPLEMENTED: CodeRow(501, 4400, "Not implemented"),
    Code.INTERNAL: CodeRow(500, 1011, "Internal error"),
    Code.UNAVAILABLE: CodeRow(503, 1013, "Unavailable", retryable=True),
    Code.DATA_LOSS: CodeRow(500, 1011, "Data loss"),
    Code.UNAUTHENTICATED: CodeRow(401, 4401, "Unauthenticated"),
}


class Problem(NamedTuple):
    """A problem type: its code, its HTTP status where that differs from the code's, and its title."""

    code: Code
    title: str
    http_status: int | None = None
    retryable: bool | None = None


# The slug is the last part of the problem's `type`, /problems/<slug>. Snakepit's error atoms stand here under
# their own names, with hyphens.
PROBLEMS: Mapping[str, Problem] = {
    # the request
    "invalid-arguments": Problem(Code.INVALID_ARGUMENT, "The arguments do not fit the tool's schema", 422),
    "invalid-option": Problem(Code.INVALID_ARGUMENT, "An option is unknown or has a wrong value"),
    "invalid-body": Problem(Code.INVALID_ARGUMENT, "The body is not a JSON object"),
    "invalid-message": Problem(Code.INVALID_ARGUMENT, "The message does not fit its type"),
    "invalid-session": Problem(Code.INVALID_ARGUMENT, "The session id is not valid"),
    "idempotency-conflict": Problem(Code.INVALID_ARGUMENT, "The idempotency key belongs to another request", 422),
    "unsupported-media-type": Problem(Code.INVALID_ARGUMENT, "The body's media type is not supported", 415),
    "not-acceptable": Problem(Code.INVALID_ARGUMENT, "No offered media type is acceptable", 406),
    "body-too-large": Problem(Code.RESOURCE_EXHAUSTED, "The body is too large", 413, retryable=False),
    "query-too-long": Problem(Code.RESOURCE_EXHAUSTED, "The query string is too long", 414, retryable=False),
    "result-too-large": Problem(Code.RESOURCE_EXHAUSTED, "The result is too large for one JSON answer", 413, retryable=False),
    "invalid-request": Problem(Code.INVALID_ARGUMENT, "The request is not valid HTTP"),
    "head-too-large": Problem(Code.RESOURCE_EXHAUSTED, "The request's head is too large", 431, retryable=False),
    "request-timeout": Problem(Code.DEADLINE_EXCEEDED, "The request did not arrive in time", 408, retryable=True),
    "too-many-connections": Problem(Code.UNAVAILABLE, "Too many connections are open"),
    "host-not-allowed": Problem(Code.PERMISSION_DENIED, "The request is for a host that this server does not answer for", 421),
    "origin-not-allowed": Problem(Code.PERMISSION_DENIED, "The web page's origin is not allowed"),
    "route-not-found": Problem(Code.NOT_FOUND, "Nothing is served at this path"),
    "method-not-allowed": Problem(Code.UNIMPLEMENTED, "The method is not allowed at this path", 405),
    # what it names
    "tool-not-found": Problem(Code.NOT_FOUND, "Tool not found"),
    "tool-not-streaming": Problem(Code.UNIMPLEMENTED, "The tool does not stream"),
    "rpc-not-found": Problem(Code.NOT_FOUND, "No such method of a gRPC service"),
    "rpc-needs-socket": Problem(Code.UNIMPLEMENTED, "The method takes a stream of messages, which needs a WebSocket"),
    "tool-streams": Problem(Code.UNIMPLEMENTED, "The tool streams and has no single result"),
    "session-not-found": Problem(Code.NOT_FOUND, "Session not found"),
    "run-not-found": Problem(Code.NOT_FOUND, "Run not found"),
    "run-expired": Problem(Code.NOT_FOUND, "The run is over and forgotten", 410),
    "pool-not-found": Problem(Code.NOT_FOUND, "Pool not found"),
    # who asks
    "unauthenticated": Problem(Code.UNAUTHENTICATED, "Authentication is needed"),
    "invalid-credential": Problem(Code.UNAUTHENTICATED, "The credential is not valid"),
    "credential-conflict": Problem(Code.INVALID_ARGUMENT, "The request has more than one credential"),
    "auth-expired": Problem(Code.UNAUTHENTICATED, "The credential has expired"),
    "scope-missing": Problem(Code.PERMISSION_DENIED, "The credential does not reach so far"),
    "auth-unavailable": Problem(Code.UNAVAILABLE, "The credential can't be checked now"),
    # capacity
    "too-many-streams": Problem(Code.RESOURCE_EXHAUSTED, "Too many open streams"),
    "quota-exceeded": Problem(Code.RESOURCE_EXHAUSTED, "A limit of the caller's is reached"),
    "memory-pressure": Problem(Code.UNAVAILABLE, "The gateway is short of memory"),
    "pool-saturated": Problem(Code.UNAVAILABLE, "Pool is saturated"),
    "queue-timeout": Problem(Code.UNAVAILABLE, "Request timed out in queue"),
    "worker-busy": Problem(Code.UNAVAILABLE, "Preferred worker is busy"),
    "no-workers-available": Problem(Code.UNAVAILABLE, "No workers available"),
    "session-worker-unavailable": Problem(Code.ABORTED, "Session worker unavailable"),
    "log-unavailable": Problem(Code.UNAVAILABLE, "The shared log can't be reached"),
    "shutting-down": Problem(Code.UNAVAILABLE, "The gateway is shutting down"),
    # the execution
    "worker-timeout": Problem(Code.DEADLINE_EXCEEDED, "Worker execution timed out"),
    "owner-lost": Problem(Code.UNAVAILABLE, "The gateway that executed the run was lost"),
    "worker-lost": Problem(Code.UNAVAILABLE, "The worker was lost"),
    "chunk-too-large": Problem(Code.RESOURCE_EXHAUSTED, "A chunk is larger than the limit", retryable=False),
    "slow-reader": Problem(Code.UNAVAILABLE, "The reader made no progress"),
    "cancelled": Problem(Code.CANCELLED, "The run was cancelled"),
    "service-lost": Problem(Code.UNAVAILABLE, "The connection to the gRPC service was lost"),
    "rpc-error": Problem(Code.UNKNOWN, "The gRPC service answered with an error"),
    "unreadable-answer": Problem(Code.INTERNAL, "The service's answer can't be read", 502),
    "tool-error": Problem(Code.UNKNOWN, "The tool failed"),
    "internal": Problem(Code.INTERNAL, "Internal error"),
}


class FieldError(NamedTuple):
    """One wrong field of a request: where (a JSON pointer or an option's name), and what is wrong with it."""

    field: str
    detail: str


class GatewayError(Exception):
    """Something a caller is told about: a row of PROBLEMS with the particulars of this case.

    `detail` is for people and says what was wrong and what is allowed. `retry_after_s` becomes Retry-After, `quotas` (the
    caller's limits, the one that is reached first) the RateLimit fields.
    """

    def __init__(
        self,
        problem: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
        extra: Mapping[str, Any] | None = None,
        quotas: Sequence[Quota] = (),
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})
        self.quotas = tuple(quotas)

    @property
    def code(self) -> Code:
        """The gRPC code."""
        return PROBLEMS[self.problem].code

    @property
    def http_status(self) -> int:
        """The HTTP status: the problem type's own, else the code's."""
        return PROBLEMS[self.problem].http_status or CODES[self.code].http_status

    @property
    def title(self) -> str:
        """The problem type's title; the same for every occurrence (RFC 9457 §3.1.3)."""
        return PROBLEMS[self.problem].title

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        row = PROBLEMS[self.problem]
        return CODES[self.code].retryable if row.retryable is None else row.retryable

    def document(self, instance: str | None = None) -> dict[str, Any]:
        """Return the problem document (RFC 9457) as a JSON object. `instance` is the run's or request's URI."""
        document: dict[str, Any] = {
            "type": f"/problems/{self.problem}",
            "title": self.title,
            "status": self.http_status,
            "detail": self.detail,
        }
        if instance is not None:
            document["instance"] = instance
        document["code"] = self.code.name
        document["retryable"] = self.retryable
        if self.errors:
            document["errors"] = [error._asdict() for error in self.errors]
        return document | self.extra


class ToolFailed(GatewayError):
    """A tool ended with a status: an exception of its own, or one that the worker raised for it.

    `error_type` is the Python exception's class name. `traceback` reaches clients in debug mode only.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        error_type: str | None = None,
        traceback: str | None = None,
        details: Any = None,
        raw: str | None = None,
    ) -> None:
        extra: dict[str, Any] = {}
        if error_type is not None:
            extra["error_type"] = error_type
        if details is not None:
            extra["details"] = details
        super().__init__("tool-error", detail, extra=extra)
        self._code = code
        self.error_type = error_type
        self.traceback = traceback
        # What the worker sent as its status message, passed on unchanged to gRPC callers.
        self.raw = raw if raw is not None else detail

    @property
    def code(self) -> Code:
        return self._code

    @property
    def retryable(self) -> bool:
        return CODES[self._code].retryable


class RpcFailed(GatewayError):
    """A gRPC service ended a call with a status of its own.

    `details` are those of a `google.rpc.Status` as JSON objects with an `@type`; `errors` and `retry_after_s` were said in them.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        extra = {"details": list(details)} if details else None
        super().__init__("rpc-error", detail, errors=errors, retry_after_s=retry_after_s, extra=extra)
        self._code = code

    @property
    def code(self) -> Code:
        return self._code

    @property
    def retryable(self) -> bool:
        return CODES[self._code].retryable
