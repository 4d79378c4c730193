"""One reader of a run: its place in the log, and what it has yet to be told.

Made by Run.subscribe, owned by a front door's response or socket. Pull with `take` (no await); when that
returns None the reader waits until the run calls its `wake`. Closing is synchronous, so it works inside a
cancelled scope, and is all that a disconnect needs: the run's policy decides what that means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.events import Chunks, Ended, Event, Gap, Started, Status
from gateway.runlog.memory import MemoryLog


class ReadableRun(Protocol):
    """What a subscription needs of its run."""

    log: MemoryLog
    ended: Ended | None

    def reader_advanced(self) -> None:
        """A reader has taken something: the worker may go on, what all have read may go."""

    def reader_left(self, subscription: Subscription) -> None:
        """The reader is gone."""


class Subscription:
    """A reader's cursor. `wake` is called from the event loop whenever there is something new to take; it must not block."""

    __slots__ = ("_closed", "_ended", "_run", "_started", "_status", "cursor", "cut", "taken_bytes", "wake")

    def __init__(self, run: ReadableRun, started: Started, cursor: int, wake: Callable[[], None]) -> None:
        self._run = run
        self._started: Started | None = started
        self._status: Status | None = None
        self._ended = False
        self._closed = False
        self.wake = wake
        # The number of the chunk it takes next.
        self.cursor = cursor
        # All bytes up to the cursor: the run compares it with its log's total to see how far behind this reader is.
        self.taken_bytes = run.log.total_bytes - run.log.bytes_from(cursor)
        # True once it lagged too far for its overflow policy: its connection is to be closed, without an end.
        self.cut = False

    @property
    def finished(self) -> bool:
        """True once the end event was taken."""
        return self._ended

    def take(self, limit: int | None = None) -> Event | None:
        """Return the next event, or None while there is nothing new.

        Order: `Started`, then chunks, each status (the newest only) ahead of the chunks that follow it, then `Ended`
        once. A gap stands where chunks are gone. `limit` bounds the chunks of one event, and of these alone: with 0, chunks
        stay where they are, and so does an end behind them.
        """
        if self._started is not None:
            started, self._started = self._started, None
            return started
        if self._status is not None:
            status, self._status = self._status, None
            return status
        run = self._run
        if self.cursor < run.log.next:
            item = run.log.read(self.cursor, limit)
            return None if item is None else self._advance(item)
        if run.ended is not None and not self._ended:
            self._ended = True
            return run.ended
        return None

    def _advance(self, item: Chunks | Gap) -> Chunks | Gap:
        if isinstance(item, Chunks):
            self.cursor = item.first + len(item.payloads)
            self.taken_bytes += item.size_bytes
            self._run.reader_advanced()
        else:
            self.cursor = item.last + 1
            self.taken_bytes = self._run.log.total_bytes - self._run.log.size_bytes
        return item

    def note(self, status: Status) -> None:
        """Have a status taken next, in place of one that was not taken yet."""
        self._status = status

    def show(self, status: Status) -> None:
        """Note a new status and wake the reader."""
        self.note(status)
        self.wake()

    def close(self) -> None:
        """Leave the run; idempotent. The last reader's leaving is the disconnect that the run's policy is about."""
        if not self._closed:
            self._closed = True
            self._run.reader_left(self)
