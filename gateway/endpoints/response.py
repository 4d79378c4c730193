"""A subscription as a streamed response: SSE or JSON lines. The only importer of sse_starlette.

`RunStream` is sse-starlette's EventSourceResponse with a `__call__` of its own. What deviates, and why:

- No task group. The base runs a task each for sending, pings, the exit signal and the disconnect; here the request's
  own task sends, our server tells of the loss (connection.py), and the drain ends the run itself.
- No cancel scope for each send, which was a quarter of an event's cost: one timer a response cuts a stuck write.
- While the task has nothing to send, a run's wake writes from where it was called, without a task switch; the task
  takes over when the client is slow, for heartbeats and for the end.
- The status line waits until the run has something to say (protocol, section 2, "the truth about the first byte"):
  a response that begins by sending its headers can't turn into a problem document.
- The heartbeat is `: hb` and one LF; the base's ping ends in a blank line, which makes clients emit a ghost event.

Kept: its place among Starlette's responses. HEAD is the endpoint's, which must not start a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from gateway.endpoints.connection import Connection
from gateway.endpoints.problem import problem_response
from gateway.events import Chunks, Ended, Event
from gateway.runs.policy import READ_ALL, ReaderOptions
from gateway.runs.run import Run

# The drain is the app's: on import sse-starlette has put itself in front of uvicorn's signal handler.
AppStatus.enable_automatic_graceful_drain = False

# One write carries at most this much, plus one batch.
WRITE_LIMIT_BYTES = 64 * 1024


class Encoder(Protocol):
    """What writes one run's events in one format."""

    media_type: str
    heartbeat: bytes

    def encode(self, event: Event) -> bytes: ...


@dataclass(frozen=True, slots=True)
class StreamTiming:
    """Seconds: silence before a heartbeat, the longest hold of the status line, the longest blocked write."""

    heartbeat_s: float = 10.0
    first_byte_hold_s: float = 1.0
    write_timeout_s: float = 30.0


class RunStream(EventSourceResponse):
    """One reader of a run as a streamed HTTP response.

    The reader is subscribed here and leaves, whatever happens, when `__call__` is done; where its overflow policy cuts it, the
    connection is closed at once, without an end.
    """

    def __init__(self, run: Run, encoder: Encoder, timing: StreamTiming, *, options: ReaderOptions = READ_ALL, debug: bool = False) -> None:
        # Not the base's __init__: it wraps an iterator, makes a lock and headers that this __call__ has no use for,
        # 40 µs in all. What Starlette and FastAPI look at is here.
        self.status_code = 200
        self.background = None
        self.raw_headers = []
        self._run = run
        self._encoder = encoder
        self._timing = timing
        self._resumed = options.after is not None
        self._debug = debug
        self._connection: Connection | None = None
        # The response's task waits in `_stream`, so that a wake may write; and what it could not write.
        self._parked = False
        self._unsent = b""
        self._is_complete = False
        self._reader = run.subscribe(self._wake, options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        timing, reader = self._timing, self._reader
        connection = self._connection = Connection(
            scope, receive, send, write_timeout_s=timing.write_timeout_s, heartbeat_s=timing.heartbeat_s, on_gone=reader.close
        )
        try:
            async with connection:
                held = await self._hold(connection)
                if connection.gone:
                    return
                last = held[-1] if held else None
                if isinstance(last, Ended) and last.error is not None and not self._resumed:
                    response = problem_response(last.error, instance=f"/v1/runs/{self._run.id}", debug=self._debug)
                    await response(scope, receive, connection.send)
                    return
                with connection.corked():
                    await connection.send({"type": "http.response.start", "status": 200, "headers": self._stream_headers()})
                    body = self._take(b"".join([self._encoder.encode(event) for event in held]))
                    await self._send(connection, body)
                await self._stream(connection)
        finally:
            reader.close()

    def _wake(self) -> None:
        """The run has something new: write it now where that is possible, else have the response's task do it."""
        connection = self._connection
        if connection is None:
            return
        if self._reader.cut:
            connection.cut()
        while self._parked:
            event = self._reader.take()
            if event is None:
                return
            body = self._encoder.encode(event)
            if self._reader.finished or not connection.write(body):
                self._parked = False
                self._unsent = body
        connection.wake()

    def _take(self, body: bytes = b"") -> bytes:
        """Return `body` and what the reader has to say now: at most WRITE_LIMIT_BYTES and one batch; empty for nothing."""
        take, encode = self._reader.take, self._encoder.encode
        event = take()
        if event is None:
            return body
        parts = [body, encode(event)]
        size = len(body) + len(parts[1])
        while size < WRITE_LIMIT_BYTES and (event := take()) is not None:
            part = encode(event)
            parts.append(part)
            size += len(part)
        return parts[1] if len(parts) == 2 and not body else b"".join(parts)

    async def _hold(self, connection: Connection) -> list[Event]:
        """Return the first events: up to the first chunk or the end, or what there is when the hold is over."""
        is_over = False

        def end() -> None:
            nonlocal is_over
            is_over = True
            connection.wake()

        # A flag, no comparison of times: uvloop's timers can be early by a fraction of its clock's millisecond.
        timer = asyncio.get_running_loop().call_later(self._timing.first_byte_hold_s, end)
        held: list[Event] = []
        try:
            while not connection.gone:
                event = self._reader.take()
                if event is not None:
                    held.append(event)
                    if isinstance(event, Chunks | Ended):
                        break
                elif is_over:
                    break
                else:
                    await connection.wait()
        finally:
            timer.cancel()
        return held

    async def _stream(self, connection: Connection) -> None:
        """Send until the end or until the client has gone."""
        while not connection.gone and not self._is_complete:
            body, self._unsent = self._take(self._unsent), b""
            if not body:
                if not connection.heartbeat_due:
                    self._parked = True
                    await connection.wait()
                    self._parked = False
                    continue
                body = self._encoder.heartbeat
            await self._send(connection, body)

    async def _send(self, connection: Connection, body: bytes) -> None:
        """Send a part of the body, which is its last when the reader has taken the end."""
        self._is_complete = self._reader.finished
        await connection.send({"type": "http.response.body", "body": body, "more_body": not self._is_complete})

    def _stream_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"content-type", self._encoder.media_type.encode() + b"; charset=utf-8"),
            *_STREAM_HEADERS,
            (b"content-location", f"/v1/runs/{self._run.id}/events".encode()),
        ]
        timing = self._run.timing()
        marks: Mapping[str, int | None] = {"queue": timing.queue_ms, "first": timing.first_chunk_ms}
        server_timing = ", ".join(f"{name};dur={value}" for name, value in marks.items() if value is not None)
        if server_timing:
            headers.append((b"server-timing", server_timing.encode()))
        return headers


_STREAM_HEADERS = [
    (b"cache-control", b"no-cache, no-transform"),
    # nginx: don't buffer. Incremental: the same wish as a standard (draft-ietf-httpbis-incremental).
    (b"x-accel-buffering", b"no"),
    (b"incremental", b"?1"),
    (b"vary", b"Accept"),
]
