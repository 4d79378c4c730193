"""One reader of a run: from the request that starts or joins it to its end, over as many connections as that takes.

Written as a conversation (steps.py), so without I/O. It keeps the place: every chunk is delivered once and in order, whatever
the network does, or else ChunksLost says which are not. A cut is a connection that is lost, that says nothing for two and a half
heartbeats, or that ends without an `end` event; then it waits (resume.py) and goes on after the last chunk it has. A run is never
started twice: until its id is known the same request is sent again, whose idempotency key joins the run that there is.

Source: docs of the protocol, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gateway.client import requests
from gateway.client.errors import ChunksLost, ClientError, GatewayProblem, NotReachable, StreamLost, problem_of
from gateway.client.eventstream import Batch, Event, EventStreamDecoder
from gateway.client.requests import Request
from gateway.client.resume import Attempts, Resume
from gateway.client.steps import Answer, Close, Conversation, Deliver, Lost, Open, Read, Wait
from gateway.client.values import decode, decode_all

OnGap = Literal["raise", "yield"]

# Silence after which a connection is taken for dead, in heartbeats.
_HEARTBEATS = 2.5
_SHORTEST_SILENCE_S = 1.0
# What a gateway or a proxy says for now only.
_PASSING = frozenset({429, 502, 503, 504})


class Chunks(NamedTuple):
    """Chunks that arrived together: `values[i]` is number `first + i`, `texts[i]` its JSON as the gateway sent it."""

    first: int
    values: list[Any]
    texts: Sequence[bytes]


class Gap(NamedTuple):
    """Chunks `first` to `last` can't be delivered, and why: `evicted`, `slow_consumer`."""

    first: int
    last: int
    reason: str


class Start(NamedTuple):
    """The first event of each connection: the run, its tool, the policy and deadlines in force; `resumed` on a later one."""

    document: Mapping[str, Any]


class Status(NamedTuple):
    """What the run does while it has nothing else to say: `queued` with its position, `running` with its worker."""

    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class End:
    """How the run ended. `chunks` counts all chunks of the run, `metadata` is the final chunk's, `timing` is in milliseconds."""

    status: str
    chunks: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    timing: Mapping[str, int | None] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)


Item = Start | Chunks | Status | Gap | End


class Pulse:
    """How long a gateway's streams may be silent: learned from the first that begins, and kept for those that follow."""

    def __init__(self, heartbeat_s: float = 10.0) -> None:
        self.silence_s = 0.0
        self.learn(heartbeat_s)

    def learn(self, heartbeat_s: float) -> None:
        """Take the heartbeat that a `start` event names."""
        self.silence_s = max(_HEARTBEATS * heartbeat_s, _SHORTEST_SILENCE_S)


class Reading:
    """The state of one reader, for whoever carries its conversation out.

    `position` is the number of the last chunk that has come; None where it isn't known, at the live end. `owned`: the run is this
    reader's alone, so that its leaving is the run's end.
    """

    def __init__(
        self,
        opening: Request,
        *,
        pulse: Pulse,
        resume: Resume,
        on_gap: OnGap = "raise",
        reader_options: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        position: int | None = 0,
        owned: bool = False,
    ) -> None:
        self.run_id = run_id
        self.position = position
        self.start: Mapping[str, Any] | None = None
        self.end: End | None = None
        self._owned = owned
        self._opening = opening
        self._reader_options = dict(reader_options or {})
        self._pulse = pulse
        self._attempts = Attempts(resume)
        self._on_gap = on_gap
        self._decoder = EventStreamDecoder()
        self._retry_ms: int | None = None

    @property
    def last_event_id(self) -> str | None:
        """The place to go on from, as `attach` takes it; None while there is none."""
        return None if self.run_id is None or self.position is None else f"{self.run_id}.{self.position}"

    def farewell(self) -> Request | None:
        """Return what is to be sent where the reader leaves before the end; None where leaving alone says it."""
        return requests.cancel(self.run_id) if self._owned and self.run_id is not None and self.end is None else None

    def conversation(self) -> Conversation[None]:
        """Read the run to its end, delivering Items.

        Raises:
            GatewayProblem: the run can't be had, or has failed; of the class that the problem's type has.
            ChunksLost: a gap, unless those are delivered.
            StreamLost: it was cut, and can't be resumed within the bounds.
            NotReachable: nobody took the first connection.
        """
        request = self._opening
        while True:
            answer = yield Open(request, self._pulse.silence_s)
            if isinstance(answer, Answer) and answer.is_stream:
                lost = yield from self._receive(answer)
                if lost is None:
                    return
                yield Close()
                detail, retry_after_s = lost.detail, None
            elif isinstance(answer, Answer):
                problem = self._refusal(answer)
                detail, retry_after_s = str(problem), problem.retry_after_s
            else:
                assert isinstance(answer, Lost)
                if not answer.reached and not self._attempts.made and self.start is None:
                    raise NotReachable(answer.url, answer.detail)
                detail, retry_after_s = answer.detail, None
            wait_s = self._attempts.next_wait_s(retry_ms=self._retry_ms, retry_after_s=retry_after_s)
            if wait_s is None:
                raise StreamLost(detail, last_event_id=self.last_event_id, attempts=self._attempts.made)
            yield Wait(wait_s)
            request = self._next_request()

    def _next_request(self) -> Request:
        """Return the request that goes on: after the last chunk, or again the first where the run isn't known yet."""
        if self.run_id is None:
            return self._opening
        if self.position is None:
            return requests.events(self.run_id, self._reader_options, begins="live")
        return requests.events(self.run_id, self._reader_options, after=self.position)

    def _refusal(self, answer: Answer) -> GatewayProblem:
        """Return the problem of an answer that may be another one soon; raise any other."""
        if answer.status == 204:
            raise StreamLost("the gateway has nothing more to say", last_event_id=self.last_event_id, attempts=self._attempts.made)
        problem = answer.problem()
        if answer.status in _PASSING and self._attempts.made:
            return problem
        raise problem

    def _receive(self, answer: Answer) -> Conversation[Lost | None]:
        """Read one connection; return why it was lost, or None after the run's end."""
        if self.run_id is None:
            self.run_id = _run_in(answer.headers.get("content-location", ""))
        self._attempts.connected()
        self._decoder = EventStreamDecoder()
        while True:
            data = yield Read()
            if isinstance(data, Lost):
                return data
            if not data:
                return Lost("", "the connection ended without an end of the stream")
            assert isinstance(data, bytes)
            items: list[Item] = []
            failure = self._take(data, items)
            if items:
                yield Deliver(items)
            if failure is not None:
                raise failure
            if self.end is not None:
                yield Close()
                if self.end.status != "ok":
                    raise _failure(self.end)
                return None

    def _take(self, data: bytes, items: list[Item]) -> ClientError | None:
        """Add what the next bytes say; return what ends the reading behind that.

        ChunksLost: a gap. StreamLost: they can't be read, and trying again would bring the same.
        """
        try:
            for event in self._decoder.feed(data):
                items += self._batch(event) if isinstance(event, Batch) else self._event(event)
        except ChunksLost as exc:
            return exc
        except (ValueError, KeyError, TypeError) as exc:
            return StreamLost(f"it can't be read: {exc}", last_event_id=self.last_event_id, attempts=self._attempts.made)
        if self._decoder.retry_ms is not None:
            self._retry_ms = self._decoder.retry_ms
        return None

    def _batch(self, batch: Batch) -> list[Item]:
        if self.run_id is not None and batch.ids != f"{self.run_id}.":
            raise ValueError(f"a chunk of another run, {batch.ids[:40]}")
        first, texts = batch.first, batch.payloads
        if self.position is not None and first <= self.position:
            # Delivered before; a gateway sends none of these.
            texts = texts[self.position + 1 - first :]
            first = self.position + 1
        if not texts:
            return []
        items: list[Item] = []
        if self.position is not None and first > self.position + 1:
            items += self._gap(self.position + 1, first - 1, "missing")
        chunks = Chunks(first, decode_all(texts), texts)
        self.position = first + len(texts) - 1
        self._attempts.progressed()
        return [*items, chunks]

    def _event(self, event: Event) -> list[Item]:
        if event.name == "message":
            ids, dot, number = (event.id or "").rpartition(".")
            if not (number.isascii() and number.isdigit() and len(number) < 16):
                raise ValueError(f"a chunk with the id {event.id!r}")
            return self._batch(Batch(ids + dot, int(number), [event.data]))
        if event.name not in ("start", "status", "gap", "end"):
            # Of a gateway that knows more than this client.
            return []
        document = decode(event.data)
        if not isinstance(document, dict):
            raise ValueError(f"a {event.name} that is no object")
        if event.name == "start":
            return [self._started(document)]
        if event.name == "status":
            return [Status(document)]
        if event.name == "gap":
            return self._gap(int(document["from"]), int(document["to"]), str(document.get("reason")))
        return self._ended(document)

    def _started(self, document: dict[str, Any]) -> Start:
        self.run_id = str(document.get("run", self.run_id))
        if self.start is None:
            self.start = document
        if isinstance(heartbeat_ms := document.get("heartbeat_ms"), int):
            self._pulse.learn(heartbeat_ms / 1000)
        return Start(document)

    def _gap(self, first: int, last: int, reason: str) -> list[Item]:
        if self._on_gap == "raise":
            raise ChunksLost(first, last, reason)
        self.position = last
        self._attempts.progressed()
        return [Gap(first, last, reason)]

    def _ended(self, document: dict[str, Any]) -> list[Item]:
        status, chunks = str(document.get("status")), int(document.get("chunks", 0))
        items: list[Item] = []
        if status == "ok" and self.position is not None and chunks > self.position:
            items += self._gap(self.position + 1, chunks, "missing")
        self.end = End(status, chunks, document.get("metadata") or {}, document.get("timing") or {}, document.get("error"), document)
        return [*items, self.end]


# What an end says that carries no problem of its own.
_PROBLEMS = {"cancelled": "cancelled", "deadline": "worker-timeout", "expired": "run-expired", "shutdown": "shutting-down"}


def _failure(end: End) -> GatewayProblem:
    """Return the error of a run that didn't end well."""
    if end.error is not None:
        return problem_of(end.error)
    if end.status == "auth_expired":
        return problem_of({"type": "/problems/auth-expired", "title": "The credential has expired", "status": 401})
    slug = _PROBLEMS.get(end.status, "")
    return problem_of({"type": f"/problems/{slug}", "title": f"The run has ended: {end.status}"})


def _run_in(location: str) -> str | None:
    """Return the run of a Content-Location, `/v1/runs/<run>/events`."""
    parts = location.split("/")
    return parts[-2] if len(parts) >= 3 and parts[-1] == "events" else None
