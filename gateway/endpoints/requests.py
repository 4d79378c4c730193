"""From an HTTP request to a ToolCall: the body, the query, the options; shared by streams, calls and background runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway.call import ToolCall
from gateway.caller import Caller, caller_of
from gateway.correlation import correlation_of
from gateway.endpoints import arguments
from gateway.endpoints.head import RequestHead
from gateway.endpoints.options import OPTIONS, CallOptions, OptionLimits, read_options, reader_from
from gateway.errors import FieldError, GatewayError
from gateway.runs.hub import Hub
from gateway.runs.idempotency import HEADER as IDEMPOTENCY_KEY
from gateway.runs.idempotency import Claim, claim
from gateway.runs.identity import parse_event_id
from gateway.runs.policy import CANCEL, OnDisconnect, ReaderOptions, Role, invalid_option
from gateway.sessions import Sessions
from gateway.value import Value

QUERY_FIELDS_LIMIT = 1000

# A header field's name as an ASGI scope has it.
_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.lower().encode("ascii")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on what a request may hold; each has a problem type of its own."""

    body_bytes: int = 16 * 1024 * 1024
    query_bytes: int = 32 * 1024
    depth: int = 64
    options: OptionLimits = field(default_factory=OptionLimits)


@final
class RunRequest(Value):
    """What an HTTP request asks for: a call, how its run is kept and read, and its idempotency key, None without one."""

    __slots__ = ("call", "options", "claim")  # noqa: RUF023

    def __init__(self, call: ToolCall, options: CallOptions, claim: Claim | None = None) -> None:
        self.call = call
        self.options = options
        self.claim = claim


@dataclass(frozen=True, slots=True)
class CallReader:
    """Reads tool calls out of HTTP requests."""

    hub: Hub
    sessions: Sessions
    limits: RequestLimits

    def read(
        self,
        request: RequestHead,
        tool: str,
        body: bytes,
        *,
        streaming: bool,
        names: Sequence[str] = OPTIONS,
        on_disconnect: OnDisconnect = CANCEL,
    ) -> RunRequest:
        """Return what a GET or POST with this body asks for. `names` and `on_disconnect`: see `read_options`.

        Raises:
            GatewayError: whatever is wrong with the request, and `tool-not-found`.
        """
        plain, options = self.split_query(request.query)
        grpc_timeout = request.header(b"grpc-timeout")
        checked = read_options(options, self.limits.options, grpc_timeout, names=names, on_disconnect=on_disconnect)
        claimed = None
        caller = caller_of(request.scope)
        if request.method == "POST":
            if plain:
                detail = f"On POST the arguments stand in the body; {plain[0][0][:40]!r} stands in the query string"
                raise GatewayError("invalid-option", detail, errors=[FieldError(plain[0][0][:60], "belongs in the body")])
            values = arguments.from_body(body, request.header(b"content-type"), depth_limit=self.limits.depth)
            key = request.header(_IDEMPOTENCY_KEY)
            if key is not None:
                claimed = claim(key, caller, tool, values, checked.given, streaming=streaming)
        else:
            schema = self.hub.catalog.find(tool, checked.pool).parameters
            values = arguments.from_query(plain, schema, depth_limit=self.limits.depth)
        begins_session = request.method != "HEAD"
        call = self.call(tool, values, checked, caller, request.scope, streaming=streaming, begins_session=begins_session)
        return RunRequest(call, checked, claimed)

    def streams(self, tool: str, request: RequestHead) -> bool:
        """Return whether a tool streams, as far as its worker says; True where it doesn't.

        Raises:
            GatewayError: `tool-not-found`, `pool-not-found`.
        """
        pool = next((value for name, value in self.split_query(request.query)[1] if name == "_pool"), None)
        return self.hub.catalog.find(tool, pool).supports_streaming is not False

    def resumption(self, request: RequestHead, *, names: Sequence[str] = OPTIONS) -> tuple[str, ReaderOptions] | None:
        """Return the event id that a request goes on after, and how it reads; None for a request that begins something.

        The id is Last-Event-ID, else `_from`: an EventSource that reconnects has both, and the header is the newer one.
        """
        last_event_id = request.header(b"last-event-id")
        if not last_event_id and b"_from=" not in request.query:
            return None
        options = read_options(self.split_query(request.query)[1], self.limits.options, names=names)
        if last_event_id:
            return last_event_id, options.reader
        if options.begins is not None and parse_event_id(options.begins) is not None:
            return options.begins, options.reader
        return None

    def reader(self, asked: RunRequest) -> ReaderOptions:
        """Return how the one who asks for a run reads it, from its beginning unless it joins one by its idempotency key.

        Raises:
            GatewayError: `invalid-option` for an observer, or a `_from`, of a run that is yet to begin; `idempotency-conflict`.
        """
        options = reader_from(asked.options.reader, asked.options.begins)
        if asked.claim is not None and self.hub.claimed(asked.claim) is not None:
            return options
        if options.role is Role.OBSERVER:
            raise invalid_option("_role", "is 'observer', but an observer starts no run; use /v1/runs/<run>/events of one that there is")
        if options.after and asked.claim is None:
            raise invalid_option("_from", f"is {options.after}, but of no run; allowed here: an event id, <run>.<number>")
        return replace(options, after=None, live=False) if options.live or options.after is not None else options

    def call(
        self,
        tool: str,
        values: dict[str, Any],
        options: CallOptions,
        caller: Caller,
        scope: Mapping[str, Any],
        *,
        streaming: bool,
        begins_session: bool = True,
    ) -> ToolCall:
        """Return the call of the request with this scope; its session begins, or goes on, with it, unless it will not be made (HEAD)."""
        session_key = None
        if options.session_id is not None and begins_session:
            session_key = self.sessions.use(options.session_id, caller).key
        return ToolCall(
            tool=tool,
            arguments=values,
            timeout_s=options.timeout_s,
            streaming=streaming,
            session_id=session_key,
            pool=options.pool,
            affinity=options.affinity,
            metadata=options.metadata,
            caller=caller,
            correlation=correlation_of(scope),
        )

    def split_query(self, raw: bytes) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return a query string's arguments and its options (the names that begin with an underscore)."""
        if not raw:
            return [], []
        if len(raw) > self.limits.query_bytes:
            detail = f"The query string has {len(raw)} bytes, the limit is {self.limits.query_bytes}; use POST for large arguments"
            raise GatewayError("query-too-long", detail)
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_LIMIT)
        except ValueError as exc:
            raise GatewayError("invalid-option", f"The query string can't be read: {exc}") from exc
        plain = [pair for pair in pairs if not pair[0].startswith("_")]
        return plain, [pair for pair in pairs if pair[0].startswith("_")]


async def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """Return a request's body; no more than the limit is ever held. That of a GET or a HEAD is not read.

    Raises:
        GatewayError: `body-too-large`.
        ClientDisconnect: the client left before it was complete.
    """
    if request.method in ("GET", "HEAD"):
        return b""
    parts: list[bytes] = []
    size = 0
    while not is_declared_larger(request.headers.get("content-length", ""), limit_bytes):
        # Not request.stream(): an async generator costs more than the usual body's one message.
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            break
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
    raise body_too_large(limit_bytes)


def is_declared_larger(content_length: str, limit_bytes: int) -> bool:
    """Return whether a Content-Length header says that the body is over the limit."""
    return content_length.isdigit() and (len(content_length) > 18 or int(content_length) > limit_bytes)


def body_too_large(limit_bytes: int) -> GatewayError:
    """Return the error for a body over the limit."""
    return GatewayError("body-too-large", f"The body is larger than {limit_bytes} bytes")
