"""Frames of the WebSocket subprotocol `snakepit.gateway.v1`, of the socket for one method of a gRPC service, and of the plain per-tool one.

Used by endpoints/. Server frames are text, one JSON object each, in the manner of graphql-transport-ws; client
frames are read into frozen values by `read_frame`. Event ids are those of SSE, `<run>.<n>`, so that a client can start
on one and go on on the other. Source: docs of the protocol, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

import orjson

from gateway.codec import documents
from gateway.errors import GatewayError
from gateway.events import Chunks, Ended, Event, Gap, Outcome, Started, Status

SUBPROTOCOL = "snakepit.gateway.v1"
ID_LIMIT = 128
# The most credit that a run may have at a time, and that one frame may add.
CREDIT_LIMIT = 1_000_000
# A control frame holds 125 bytes, of which the close code takes two (RFC 6455 §5.5).
CLOSE_REASON_LIMIT_BYTES = 123

PING = '{"type":"ping"}'
PONG = '{"type":"pong"}'


class BadFrame(Exception):
    """A client frame that breaks the subprotocol: the socket closes with `close_code`, 4400 unless it says other."""

    def __init__(self, reason: str, close_code: int = 4400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.close_code = close_code


@dataclass(frozen=True, slots=True)
class ClientFrame:
    """One frame from a client. `id` is its name for a run on this socket; empty for frames about the socket itself.

    `n` is what a `credit` adds: how many `next` frames more the client has room for. `message` is the payload of a `send`, any JSON value.
    """

    type: str
    id: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    n: int = 0
    message: Any = None


# type -> (needs an id, needs a payload)
CLIENT_FRAMES: Mapping[str, tuple[bool, bool]] = {
    "connection_init": (False, False),
    "ping": (False, False),
    "pong": (False, False),
    "subscribe": (True, True),
    "attach": (True, True),
    "credit": (True, False),
    "send": (True, True),
    "end": (True, False),
    "complete": (True, False),
    "cancel": (True, False),
}
# On a socket for one method there is one run, which needs no name.
METHOD_FRAMES: Mapping[str, tuple[bool, bool]] = {
    "ping": (False, False),
    "pong": (False, False),
    "send": (False, True),
    "end": (False, False),
    "credit": (False, False),
    "cancel": (False, False),
}


def read_frame(text: str, frames: Mapping[str, tuple[bool, bool]] = CLIENT_FRAMES) -> ClientFrame:
    """Return the frame in a text message; `frames` are those that there are.

    Raises:
        BadFrame: it isn't a JSON object of a known type with the members that the type needs.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise BadFrame(f"not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise BadFrame("a frame is a JSON object")
    kind = document.get("type")
    if not isinstance(kind, str) or kind not in frames:
        raise BadFrame(f"unknown frame type {shown(kind)}; known: {', '.join(frames)}")
    needs_id, needs_payload = frames[kind]
    name, payload = document.get("id", ""), document.get("payload")
    if needs_id and not (isinstance(name, str) and 0 < len(name) <= ID_LIMIT):
        raise BadFrame(f"{kind} needs an `id`: a text of 1 to {ID_LIMIT} characters")
    if kind == "send":
        if "payload" not in document:
            raise BadFrame("send needs a `payload`: the message")
        return ClientFrame(kind, name if needs_id else "", message=payload)
    if payload is None and not needs_payload:
        payload = {}
    if not isinstance(payload, dict):
        raise BadFrame(f"{kind} needs a `payload`: an object")
    return ClientFrame(kind, name if needs_id else "", payload, _credit_of(document) if kind == "credit" else 0)


def shown(value: object, limit: int = 40) -> str:
    """Return a value out of a frame for an error's text: at most so many characters of it, a list or an object only as such.

    JSON may nest deeper than Python's stack allows to print.
    """
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(str(value)[:limit])


def is_credit(value: object) -> bool:
    """Return whether a value is a number of chunks that can be granted at once."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= CREDIT_LIMIT


def _credit_of(document: Mapping[str, Any]) -> int:
    number = document.get("n")
    if not is_credit(number):
        raise BadFrame(f"credit needs an `n`: a whole number from 1 to {CREDIT_LIMIT}")
    return int(number)  # type: ignore[arg-type]


def close_reason(text: str) -> str:
    """Return as much of a text as a close frame can hold."""
    return text.encode("utf-8", "replace")[:CLOSE_REASON_LIMIT_BYTES].decode("utf-8", "ignore")


def ack(limits: Mapping[str, Any]) -> str:
    """Return `connection_ack` with the limits of this socket."""
    return documents.dump({"type": "connection_ack", "payload": dict(limits)}).decode()


def goaway(reconnect_in_ms: int) -> str:
    """Return `goaway`: the server drains, the client should connect again after that time."""
    return documents.dump({"type": "goaway", "payload": {"reconnect_in_ms": reconnect_in_ms}}).decode()


def error(name: str | None, problem: GatewayError) -> str:
    """Return the terminal `error` frame for a run that could not be started or joined; `name` None: on a socket for one method."""
    return documents.dump({"type": "error", **_named(name), "payload": problem.document()}).decode()


def delivered(name: str, run: str) -> str:
    """Return the terminal `complete` frame for a client that has everything: what 204 is to an SSE client.

    It says neither how the run ended, which its client was told, nor whether the run is still known.
    """
    return documents.dump({"type": "complete", "id": name, "payload": {"run": run, "delivered": True}}).decode()


def refused(problem: GatewayError) -> bytes:
    """Return the only message of a plain socket whose run could not be started."""
    data = {"status": Outcome.ERROR.value, "error": problem.document(), "chunks": 0}
    return documents.dump({"event": "end", "data": data})


def cut_error() -> GatewayError:
    """Return the error for a reader that fell too far behind for its overflow policy, `disconnect`."""
    return GatewayError("slow-reader", "This reader fell too far behind and was cut; the run goes on: attach with the last event id")


class FrameEncoder:
    """Encodes the events of one run as frames of the subprotocol, under the client's `id` for it.

    `name` None: without an id, for a socket for one method.
    """

    def __init__(self, run: str, name: str | None, *, debug: bool = False) -> None:
        self._instance = f"/v1/runs/{run}"
        self._named = _named(name)
        named = b"" if name is None else b',"id":%b' % orjson.dumps(name)
        self._next = b'{"type":"next"%b,"eid":"%b.' % (named, run.encode())
        self._debug = debug

    def encode(self, event: Event) -> list[bytes]:
        """Return the frames for one event, or for one batch of chunks: texts in UTF-8."""
        if isinstance(event, Chunks):
            head = self._next
            return [b'%b%d","payload":%b}' % (head, n, _text(payload)) for n, payload in enumerate(event.payloads, event.first)]
        if isinstance(event, Ended):
            return [self._terminal(event)]
        return [self._frame(_NAMES[type(event)], _document(event))]

    def cut(self) -> list[bytes]:
        """Return the terminal `error` of a reader that was cut. The run has not ended, so it carries no end event."""
        return [self._frame("error", cut_error().document(self._instance))]

    def _terminal(self, event: Ended) -> bytes:
        """Return `complete` with the end event, or `error` with the problem and the rest of the end event beside it."""
        end = documents.ended(event, self._instance, debug=self._debug)
        if event.outcome not in _FAILURES or "error" not in end:
            return self._frame("complete", end)
        problem = end.pop("error")
        return documents.dump({"type": "error", **self._named, "payload": problem, "end": end})

    def _frame(self, kind: str, payload: dict[str, Any]) -> bytes:
        return documents.dump({"type": kind, **self._named, "payload": payload})


class EventEncoder:
    """Encodes the events of one run for the plain socket: the SSE events as `{"event","id","data"}` objects."""

    def __init__(self, run: str, *, debug: bool = False) -> None:
        self._run = run
        self._debug = debug

    def encode(self, event: Event) -> list[bytes]:
        """Return the messages for one event, or for one batch of chunks: texts in UTF-8."""
        if isinstance(event, Chunks):
            head = b'{"event":"message","id":"%b.' % self._run.encode()
            return [b'%b%d","data":%b}' % (head, n, _text(payload)) for n, payload in enumerate(event.payloads, event.first)]
        if isinstance(event, Ended):
            data = documents.ended(event, f"/v1/runs/{self._run}", debug=self._debug)
            name = {} if event.outcome is Outcome.AUTH_EXPIRED else {"id": f"{self._run}.end"}
            return [documents.dump({"event": "end", **name, "data": data})]
        message: dict[str, Any] = {"event": _NAMES[type(event)]}
        if isinstance(event, Started) and event.resumed_from is None:
            message["id"] = f"{self._run}.0"
        return [documents.dump({**message, "data": _document(event)})]

    def cut(self) -> list[bytes]:
        """Return nothing: a stream without an `end` was cut, and the close frame says why."""
        return []


def text_frames(messages: Sequence[bytes]) -> bytes:
    """Return text messages as they go on the wire from a server: one unmasked frame each (RFC 6455 §5.2)."""
    parts: list[bytes] = []
    for message in messages:
        size = len(message)
        if size < 126:
            parts.append(b"\x81%c" % size)
        else:
            parts.append(_MEDIUM.pack(0x81, 126, size) if size < 65536 else _LARGE.pack(0x81, 127, size))
        parts.append(message)
    return b"".join(parts)


_MEDIUM = Struct(">BBH")
_LARGE = Struct(">BBQ")


def _named(name: str | None) -> dict[str, Any]:
    return {} if name is None else {"id": name}


def _text(payload: bytes) -> bytes:
    """Return a payload as valid UTF-8, without which a client has to close the socket (RFC 6455 §8.1)."""
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            return payload.decode("utf-8", "replace").encode()
    return payload


_FAILURES = frozenset({Outcome.ERROR, Outcome.DEADLINE, Outcome.AUTH_EXPIRED})
_NAMES: Mapping[type, str] = {Started: "start", Status: "status", Gap: "gap"}


def _document(event: Started | Status | Gap) -> dict[str, Any]:
    if isinstance(event, Started):
        return documents.started(event)
    return documents.status(event) if isinstance(event, Status) else documents.gap(event)
