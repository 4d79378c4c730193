"""A subscription as a streamed response: SSE or JSON lines, whichever server and format.

A state machine over an Exchange (exchange.py) whose steps are short synchronous functions, called when the run has
something new (`_wake`), when the client takes more, has left, or when a moment has come (`_tick`). No task and no cancel
scope for each send: what a run has is written from where it was woken, and one timer a response holds the status line,
sends heartbeats and cuts a client that makes no progress. eventsource.py makes one of Starlette's responses of it.

The status line waits until the run has something to say (protocol, section 2, "the truth about the first byte"):
a response that begins by sending its headers can't turn into a problem document.

    state      left when
    holding    the first chunk or the end is there, or `first_byte_hold_s` is over -> streaming; an error -> over
    streaming  the client is slow -> blocked; the end was written, or the client has left -> over
    blocked    the client has caught up -> streaming; it did not in `write_timeout_s`, or it has left -> over
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import structlog

from gateway import timers
from gateway.caller import Caller
from gateway.codec import ratelimit
from gateway.codec.encoder import Encoder
from gateway.endpoints.exchange import Exchange, Headers
from gateway.endpoints.problem import problem_response
from gateway.events import Chunks, Ended, Event
from gateway.runs.policy import READ_ALL, ReaderOptions
from gateway.runs.quotas import Account
from gateway.runs.source import RunSource

# One write carries at most this much, plus one batch.
WRITE_LIMIT_BYTES = 64 * 1024

_log = structlog.get_logger("gateway.endpoints")


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """Seconds: silence before a heartbeat, the longest hold of the status line, the longest blocked write."""

    heartbeat_s: float = 10.0
    first_byte_hold_s: float = 1.0
    write_timeout_s: float = 30.0


@final
class RunStream:
    """One reader of a run as a streamed HTTP response.

    The reader is subscribed here and leaves, whatever happens, when the response is over; where its overflow policy cuts
    it, the connection is closed at once, without an end.
    """

    def __init__(
        self,
        run: RunSource,
        caller: Caller,
        encoder: Encoder,
        timing: StreamTiming,
        *,
        options: ReaderOptions = READ_ALL,
        debug: bool = False,
    ) -> None:
        self._run = run
        self._encoder = encoder
        self._timing = timing
        self._resumed = options.after is not None
        self._debug = debug
        self._exchange: Exchange | None = None
        # What was taken while the status line is held; None once it was sent.
        self._held: list[Event] | None = []
        # When the last write was made, and since when the client has been asked to take more; in the loop's time.
        self._written_at = 0.0
        self._blocked_since: float | None = None
        self._timers = timers.running()
        self._timer: timers.Timer | None = None
        self._reader = run.subscribe(self._wake, caller, options)
        self._reader.format = encoder.name

    def answer(self, exchange: Exchange) -> None:
        """Answer on an exchange; returns at once, and goes on from callbacks until the response is over."""
        self._exchange = exchange
        exchange.on_lost = self.close
        exchange.on_writable = self._unblock
        clock = self._timers
        self._written_at = clock.time()
        self._timer = clock.call_later(self._timing.first_byte_hold_s, self._tick)
        self._wake()

    def close(self) -> None:
        """Be over: the reader leaves the run. Idempotent."""
        if self._exchange is not None:
            self._exchange = None
            if self._timer is not None:
                self._timer.cancel()
        self._reader.close()

    def _wake(self) -> None:
        """The run has something new: write it."""
        exchange = self._exchange
        if exchange is None:
            return
        if self._reader.cut:
            self._cut(exchange)
            return
        if self._blocked_since is not None:
            return
        try:
            if self._held is None:
                self._stream(exchange)
            else:
                self._hold(exchange, self._held)
        except Exception:
            # A mistake of ours costs this response, not the run or whoever woke it.
            _log.exception("a response failed", run=self._run.id)
            self.close()
            exchange.abort()

    def _cut(self, exchange: Exchange) -> None:
        """Close the connection without an end, so that the client may come back."""
        self.close()
        if self._held is None and (farewell := self._encoder.farewell()):
            exchange.cut(farewell)
        else:
            exchange.abort()

    def _unblock(self) -> None:
        self._blocked_since = None
        self._wake()

    def _hold(self, exchange: Exchange, held: list[Event]) -> None:
        """Take events up to the first chunk or the end, then begin."""
        while (event := self._reader.take()) is not None:
            held.append(event)
            if isinstance(event, Chunks):
                self._begin(exchange, held)
                return
            if isinstance(event, Ended):
                if event.error is None or self._resumed:
                    self._begin(exchange, held)
                else:
                    self.close()
                    run = self._run
                    problem = problem_response(event.error, instance=f"/v1/runs/{run.id}", trace_id=run.trace_id, debug=self._debug)
                    exchange.hand_over(problem)
                return

    def _begin(self, exchange: Exchange, held: list[Event]) -> None:
        """Send the status line and what was held back."""
        self._held = None
        exchange.begin(
            constant_headers(self._encoder.media_type), self._own_headers(), b"".join([self._encoder.encode(event) for event in held])
        )
        if self._reader.finished:
            self.close()
            exchange.finish(b"")
        else:
            self._written_at = self._timers.time()
            self._stream(exchange)

    def _stream(self, exchange: Exchange) -> None:
        """Write what the run has, for as long as the client takes it."""
        while exchange.writable:
            body = self._take()
            if not body:
                return
            if self._reader.finished:
                self.close()
                exchange.finish(body)
                return
            exchange.write(body)
            self._written_at = self._timers.time()
            if len(body) < WRITE_LIMIT_BYTES and exchange.writable:
                # That was all: a look for more would be one for each event.
                return
        self._blocked_since = self._timers.time()

    def _take(self) -> bytes:
        """Return what the reader has to say now; empty for nothing.

        At least WRITE_LIMIT_BYTES where it has so much, at most one batch more than that.
        """
        take, encode = self._reader.take, self._encoder.encode
        event = take()
        if event is None:
            return b""
        part = encode(event)
        size = len(part)
        if size >= WRITE_LIMIT_BYTES or (event := take()) is None:
            return part
        parts = [part]
        while event is not None:
            part = encode(event)
            parts.append(part)
            size += len(part)
            event = take() if size < WRITE_LIMIT_BYTES else None
        return b"".join(parts)

    def _tick(self) -> None:
        """End the hold, send a heartbeat or cut a client that makes no progress: whatever the moment has come for."""
        exchange = self._exchange
        if exchange is None:
            return
        now = self._timers.time()
        if self._held is not None:
            self._begin(exchange, self._held)
            if self._exchange is None:
                return
        if self._blocked_since is not None:
            due = self._blocked_since + self._timing.write_timeout_s
            if now >= due:
                self.close()
                exchange.abort()
                return
        else:
            due = self._written_at + self._timing.heartbeat_s
            if now >= due:
                exchange.write(self._encoder.heartbeat)
                self._written_at = now
                due = now + self._timing.heartbeat_s
                if not exchange.writable:
                    self._blocked_since = now
        self._timer = self._timers.call_at(min(due, now + self._timing.write_timeout_s), self._tick)

    def _own_headers(self) -> Headers:
        timing = self._run.timing()
        marks = [b"queue;dur=%d" % timing.queue_ms] if timing.queue_ms is not None else []
        if timing.first_chunk_ms is not None:
            marks.append(b"first;dur=%d" % timing.first_chunk_ms)
        own = [(b"content-location", f"/v1/runs/{self._run.id}/events".encode())]
        if marks:
            own.append((b"server-timing", b", ".join(marks)))
        own += [(name.encode("ascii"), value.encode("ascii")) for name, value in self._run.headers]
        if self._run.account is not None:
            own += _limit_headers(self._run.account)
        return own


def _limit_headers(account: Account) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in ratelimit.fields(account.quotas()).items()]


@cache
def constant_headers(media_type: str) -> Headers:
    """Return the headers that all streams of a media type have in common."""
    return (
        (b"content-type", media_type.encode() + b"; charset=utf-8"),
        (b"cache-control", b"no-cache, no-transform"),
        # nginx: don't buffer. Incremental: the same wish as a standard (draft-ietf-httpbis-incremental).
        (b"x-accel-buffering", b"no"),
        (b"incremental", b"?1"),
        (b"vary", b"Accept"),
    )
