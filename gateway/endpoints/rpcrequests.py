"""From an HTTP request to a call of a gRPC service's method: its message, its metadata, its options.

What requests.py is for tools. The message is checked, and made, by the method's codec before anything else is done with it. A run of a
method has no session, no affinity and no `_meta.`: those are a worker's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakKeyDictionary

from gateway.call import AnswerCodec, RpcRequest, ToolCall
from gateway.caller import caller_of
from gateway.codec import ndjson
from gateway.codec.protojson import MessageCodec
from gateway.correlation import correlation_of
from gateway.endpoints import arguments
from gateway.endpoints.head import RequestHead
from gateway.endpoints.options import META_PREFIX, READER_OPTIONS, CallOptions, OptionLimits, read_options
from gateway.endpoints.requests import CallReader, RunRequest
from gateway.errors import FieldError, GatewayError
from gateway.runs.idempotency import HEADER as IDEMPOTENCY_KEY
from gateway.runs.idempotency import claim
from gateway.runs.policy import CANCEL, OnDisconnect, ReaderOptions, invalid_option
from gateway.services.bodyfeed import BodyFeed
from gateway.services.metadata import metadata_of
from gateway.services.method import Method
from gateway.services.queries import Query
from gateway.services.tool import RpcTool

Pairs = Sequence[tuple[str, str]]

RPC_RUN_OPTIONS: Final = ("_pool", "_timeout_ms", "_queue_timeout_ms", "_first_chunk_timeout_ms", "_idle_timeout_ms", "_on_disconnect")
RPC_OPTIONS: Final = (*RPC_RUN_OPTIONS, *READER_OPTIONS)
RPC_STARTING_OPTIONS: Final = (*RPC_RUN_OPTIONS, "_overflow")

# Messages in one body: they are checked in one step, in which nothing else goes on.
LINES_LIMIT: Final = 1000

_IDEMPOTENCY_KEY = IDEMPOTENCY_KEY.lower().encode("ascii")


@dataclass(frozen=True, slots=True)
class RpcQuestion:
    """What a request asks of a method.

    `message` returns the request's message as a JSON value, or raises what is wrong with it; where there are `many`, a list of them.
    `given` are the request's options; `answers` makes JSON of what comes, None: the method's own.
    """

    tool: RpcTool
    message: Callable[[], Any]
    given: Pairs
    answers: AnswerCodec | None = None
    many: bool = False


class RpcReader:
    """Reads calls of methods out of HTTP requests; `calls` does so for tools."""

    def __init__(self, calls: CallReader) -> None:
        self.calls = calls
        self._limits: dict[float, OptionLimits] = {}
        self._queries: WeakKeyDictionary[Method, Query] = WeakKeyDictionary()

    def question(self, request: RequestHead, name: str, body: bytes) -> RpcQuestion:
        """Return what a request at a method's own path asks: the message stands in a GET's query, else in the body.

        Raises:
            GatewayError: `rpc-not-found`, `pool-not-found`, `no-workers-available`, `invalid-option`, `query-too-long`.
        """
        plain, given = self.calls.split_query(request.query)
        tool = self.find(name, given)
        if request.method != "POST":
            return RpcQuestion(tool, lambda: self._query(tool.method).read(plain), given)
        if plain:
            detail = f"On POST the message stands in the body; {plain[0][0][:40]!r} stands in the query string"
            raise invalid_option(plain[0][0][:60], detail)
        if tool.method.kind.client_streams and is_lines(request):
            return RpcQuestion(tool, lambda: self.lines(body), given, many=True)
        return RpcQuestion(tool, lambda: self.body(request, body, {}), given)

    def find(self, name: str, given: Pairs) -> RpcTool:
        """Return the method of that name, of the service that `_pool` names where it does.

        Raises:
            GatewayError: see Catalog.find.
        """
        tool = self.calls.hub.catalog.find(name, next((value for option, value in given if option == "_pool"), None))
        assert isinstance(tool, RpcTool), "the catalogue has methods under such names"
        return tool

    def body(self, request: RequestHead, body: bytes, empty: Any) -> Any:
        """Return the JSON value in a body, `empty` where there is none.

        Raises:
            GatewayError: `unsupported-media-type`, `invalid-body`.
        """
        if not body:
            return empty
        return arguments.value_from_body(body, request.header(b"content-type"), depth_limit=self.calls.limits.depth)

    def lines(self, body: bytes) -> list[Any]:
        """Return the JSON values in a body's lines; empty lines are none.

        Raises:
            GatewayError: `invalid-body`, also for more than LINES_LIMIT of them.
        """
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) > LINES_LIMIT:
            raise GatewayError("invalid-body", f"The body has {len(lines)} lines, the limit is {LINES_LIMIT}; a WebSocket has none")
        return [arguments.value_from_body(line, "application/json", depth_limit=self.calls.limits.depth) for line in lines]

    def read(self, request: RequestHead, asked: RpcQuestion, *, names: Sequence[str], on_disconnect: OnDisconnect) -> RunRequest:
        """Return the call that a question makes. `names` and `on_disconnect`: see `read_options`.

        Raises:
            GatewayError: `invalid-option`, `invalid-message`, and what `asked.message` raises.
        """
        tool, caller = asked.tool, caller_of(request.scope)
        options = self.options(tool, asked.given, request.header(b"grpc-timeout"), names=names, on_disconnect=on_disconnect)
        value = asked.message()
        metadata = metadata_of(request.scope["headers"], tool.options.headers_in)
        codec = tool.method.request
        feed = BodyFeed([_line(codec, number, line) for number, line in enumerate(value)]) if asked.many else None
        message = b"" if asked.many else codec.from_json(value)
        streaming = tool.method.kind.server_streams
        key = None if request.method in ("GET", "HEAD") else request.header(_IDEMPOTENCY_KEY)
        claimed = None if key is None else claim(key, caller, tool.name, value, [*options.given, *metadata], streaming=streaming)
        call = ToolCall(
            tool=tool.name,
            arguments={},
            timeout_s=options.timeout_s,
            streaming=streaming,
            pool=options.pool,
            rpc=RpcRequest(message, metadata, asked.answers, feed),
            caller=caller,
            correlation=correlation_of(request.scope),
        )
        return RunRequest(call, options, claimed)

    def resumption(self, request: RequestHead) -> tuple[str, ReaderOptions] | None:
        """Return the event id that a request goes on after, and how it reads; see CallReader.resumption."""
        return self.calls.resumption(request, names=RPC_OPTIONS)

    def options(
        self, tool: RpcTool, given: Pairs, grpc_timeout: str | None, *, names: Sequence[str], on_disconnect: OnDisconnect = CANCEL
    ) -> CallOptions:
        """Return the options of a call of this method.

        Raises:
            GatewayError: `invalid-option`.
        """
        limits = self._limits_of(tool.options.timeout_s)
        options = read_options(given, limits, grpc_timeout, names=names, on_disconnect=on_disconnect)
        if options.metadata:
            name = META_PREFIX + next(iter(options.metadata))
            raise invalid_option(name, "has no meaning for a gRPC service; its setting headers_in says which headers become metadata")
        return options

    def _limits_of(self, timeout_s: float | None) -> OptionLimits:
        """Return the limits of options for a service whose calls have this time by default."""
        limits = self.calls.limits.options
        if timeout_s is None:
            return limits
        known = self._limits.get(timeout_s)
        if known is None:
            known = self._limits[timeout_s] = replace(limits, timeout_s=min(timeout_s, limits.timeout_limit_s))
        return known

    def _query(self, method: Method) -> Query:
        known = self._queries.get(method)
        if known is None:
            known = self._queries[method] = Query(method.request.descriptor)
        return known


def is_lines(request: RequestHead) -> bool:
    """Return whether a body is JSON lines, by its media type."""
    return (request.header(b"content-type") or "").partition(";")[0].strip().lower() in ndjson.MEDIA_TYPES


def _line(codec: MessageCodec, number: int, value: Any) -> bytes:
    """Return the message of one line; what is wrong with it is said as of an array's item."""
    try:
        return codec.from_json(value)
    except GatewayError as error:
        errors = [FieldError(f"/{number}{entry.field if entry.field != '/' else ''}", entry.detail) for entry in error.errors]
        raise GatewayError(error.problem, f"Line {number + 1}: {error.detail}", errors=errors) from error


def method_not_allowed(name: str, http_method: str, allowed: Sequence[str]) -> GatewayError:
    """Return the error for a method that isn't called so."""
    return GatewayError("method-not-allowed", f"{http_method} is not allowed for {name}: use {' or '.join(allowed)}")
