"""What a client sends, as values: every request of the API that it uses, with its options checked for their names.

client.py and aio.py send them; nothing here does I/O. Source: docs of the protocol, sections 1 and 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict
from urllib.parse import quote

from gateway.call import is_rpc
from gateway.client.values import encode_arguments

# The reader's silence within which an answer has to come that is not a stream.
ANSWER_S = 30.0
# The longest time-out that a gateway allows by default: a unary call may be silent for so long.
_LONGEST_CALL_S = 3600.0
# The longest wait that is asked for at once; a proxy may cut a connection that is silent for a minute.
WAIT_S = 25

Affinity = Literal["hint", "strict_queue", "strict_fail_fast"]


class CallOptions(TypedDict, total=False):
    """What a call may say besides its arguments. Times are in seconds; what is left out is as the gateway's settings say.

    `session_id` pins the session's calls to one worker, by `affinity`. `timeout_s`: for all of the run, the queue included;
    `queue_timeout_s`: for the wait for a worker. `metadata`: entries of the call's metadata, as far as the settings allow them.
    """

    pool: str | None
    session_id: str | None
    timeout_s: float | None
    queue_timeout_s: float | None
    affinity: Affinity | None
    metadata: Mapping[str, str] | None


class RunOptions(CallOptions, total=False):
    """What a run may say.

    `first_chunk_timeout_s` and `idle_timeout_s` limit silence. `on_disconnect`: what it means when the last reader leaves: `cancel`,
    `continue`, or `grace:30s`, which waits so long for it to come back.
    """

    first_chunk_timeout_s: float | None
    idle_timeout_s: float | None
    on_disconnect: str | None


class StreamOptions(RunOptions, total=False):
    """What a stream may say. `overflow`: what happens when this reader lags: `block`, `latest` or `disconnect`."""

    overflow: str | None


class ReaderOptions(TypedDict, total=False):
    """What a reader of a run that is there may say. `role`: `subscriber`, or `observer`, whom the run takes no notice of."""

    overflow: str | None
    role: str | None


_CALL = CallOptions.__optional_keys__
_RUN = RunOptions.__optional_keys__
_STREAM = StreamOptions.__optional_keys__
_READER = ReaderOptions.__optional_keys__


class Request(NamedTuple):
    """An HTTP request. `path` is below the gateway's URL; `answer_s`: how long the answer may be silent."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    answer_s: float = ANSWER_S


def tools() -> Request:
    """The catalogue."""
    return Request("GET", "/v1/tools")


def tool(name: str, pool: str | None = None) -> Request:
    """One tool of the catalogue; of a method, its service."""
    if is_rpc(name):
        return Request("GET", f"/v1/rpc/{_quoted(name.partition('/')[0])}")
    return Request("GET", f"/v1/tools/{_quoted(name)}", () if pool is None else (("_pool", pool),))


def call(name: str, arguments: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Request:
    """A unary tool's result, or a unary method's answer."""
    query = _query(options, _CALL)
    answer_s = (options.get("timeout_s") or _LONGEST_CALL_S) + ANSWER_S
    headers = (("Accept", "application/json"), _JSON)
    return Request("POST", _path(name, "call"), query, headers, encode_arguments(arguments or {}), answer_s)


def stream(name: str, arguments: Mapping[str, Any] | None, key: str, options: Mapping[str, Any]) -> Request:
    """A tool's stream, or a method's. With its key it may be sent again, and the tool runs once."""
    headers = (_EVENTS, _JSON, ("Idempotency-Key", key))
    return Request("POST", _path(name, "stream"), _query(options, _STREAM), headers, encode_arguments(arguments or {}))


def start(name: str, arguments: Mapping[str, Any] | None, key: str | None, options: Mapping[str, Any]) -> Request:
    """A run in the background."""
    headers: tuple[tuple[str, str], ...] = (_JSON,) if key is None else (_JSON, ("Idempotency-Key", key))
    if is_rpc(name):
        headers = (*headers, ("Prefer", "respond-async"))
    return Request("POST", _path(name, "runs"), _query(options, _RUN), headers, encode_arguments(arguments or {}))


def events(run_id: str, options: Mapping[str, Any], *, after: int | None = None, begins: str | None = None) -> Request:
    """A run's events, after the chunk of a number, or from where `begins` says: `start` or `live`."""
    query = _query(options, _READER)
    if begins is not None:
        query += (("_from", begins),)
    headers = (_EVENTS,) if after is None else (_EVENTS, ("Last-Event-ID", f"{run_id}.{after}"))
    return Request("GET", f"/v1/runs/{_quoted(run_id)}/events", query, headers)


def runs(*, state: str | None, tool: str | None, limit: int, cursor: str | None) -> Request:
    """A page of the runs, newest first."""
    asked = (("state", state), ("tool", tool), ("cursor", cursor), ("limit", str(limit)))
    return Request("GET", "/v1/runs", tuple((name, value) for name, value in asked if value is not None))


def live_runs(*, state: str | None, tool: str | None, limit: int) -> Request:
    """Everybody's open runs, the newest."""
    asked = (("state", state), ("tool", tool), ("limit", str(limit)))
    return Request("GET", "/v1/admin/runs", tuple((name, value) for name, value in asked if value is not None))


def run(run_id: str) -> Request:
    """A run's state."""
    return Request("GET", f"/v1/runs/{_quoted(run_id)}")


def result(run_id: str, wait_s: int) -> Request:
    """A run's result, and a wait for it."""
    headers = (("Accept", "application/json"), ("Prefer", f"wait={wait_s}"))
    return Request("GET", f"/v1/runs/{_quoted(run_id)}/result", headers=headers, answer_s=ANSWER_S + wait_s)


def cancel(run_id: str) -> Request:
    """The end of a run."""
    return Request("DELETE", f"/v1/runs/{_quoted(run_id)}")


_EVENTS = ("Accept", "text/event-stream")
_JSON = ("Content-Type", "application/json")


def _path(name: str, action: str) -> str:
    """Return where a tool is executed; a method of a gRPC service, `package.Service/Method`, has one path for all."""
    if is_rpc(name):
        service, _, method = name.partition("/")
        return f"/v1/rpc/{_quoted(service)}/{_quoted(method)}"
    return f"/v1/tools/{_quoted(name)}/{action}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _query(options: Mapping[str, Any], known: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return options as they stand in a query string.

    Raises:
        TypeError: one of them is none.
    """
    query: list[tuple[str, str]] = []
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise TypeError(f"{name!r} is no option here; {hint}known: {', '.join(sorted(known))}")
        if value is None:
            continue
        if name == "metadata":
            query += [(f"_meta.{key}", str(text)) for key, text in value.items()]
        elif name.endswith("_s"):
            query.append((f"_{name.removesuffix('_s')}_ms", str(max(1, round(value * 1000)))))
        else:
            query.append(("_session" if name == "session_id" else f"_{name}", str(value)))
    return tuple(query)
