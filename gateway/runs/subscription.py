"""One reader of a run: its place in the log, and what it has yet to be told.

Made by Run.subscribe, owned by a front door's response or socket. Pull with `take` (no await); when that
returns None the reader waits until the run calls its `wake`. Closing is synchronous, so it works inside a
cancelled scope, and is all that a disconnect needs: the run's policy decides what that means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from gateway import timers
from gateway.errors import GatewayError
from gateway.events import Chunks, Ended, Event, Gap, Outcome, Started, Status
from gateway.runlog.memory import Place
from gateway.runs.policy import Overflow, ReaderOptions, Role

if TYPE_CHECKING:
    from gateway.runs.source import RunSource


@final
class Subscription(Place):
    """A reader's cursor. `wake` is called from the event loop whenever there is something new to take; it must not block."""

    __slots__ = (
        "_account",
        "_closed",
        "_ended",
        "_expiry",
        "_gap",
        "_run",
        "_started",
        "_status",
        "cut",
        "expired",
        "format",
        "options",
        "wake",
    )

    def __init__(self, run: RunSource, started: Started, cursor: int, wake: Callable[[], None], options: ReaderOptions) -> None:
        log = run.log
        # The number of the chunk that it takes next; all bytes up to there, so that what the log's total is more than that is how
        # far behind it is; how far that may be.
        super().__init__(cursor, log.bytes_before(cursor), min(options.lag_bytes, log.lag_limit_bytes))
        self._run = run
        # Who pays for what is taken; None: it costs nothing.
        self._account = run.account
        self._started: Started | None = started
        # What is taken next: the newest status, or the end of a reader whose time is over.
        self._status: Status | Ended | None = None
        self._gap: Gap | None = None
        self._ended = False
        self._closed = False
        self.wake = wake
        self.options = options
        # What it is written as, a name of the front door's for the operator: sse, ndjson, json, websocket, grpc.
        self.format = "other"
        # True once it lagged too far for its overflow policy: its connection is to be closed, without an end.
        self.cut = False
        # True once its caller's credential has expired: its end says so, and the run may go on.
        self.expired = False
        self._expiry: timers.Timer | None = None

    @property
    def finished(self) -> bool:
        """True once the end event was taken."""
        return self._ended

    @property
    def holds(self) -> bool:
        """Whether it must lose nothing, and the worker waits for it."""
        return self.options.overflow is Overflow.BLOCK and self.options.role is Role.SUBSCRIBER

    def take(self, limit: int | None = None) -> Event | None:
        """Return the next event, or None while there is nothing new, and always once the reader was cut.

        Order: `Started`, then chunks, each status (the newest only) ahead of the chunks that follow it, then `Ended`
        once. A gap stands where chunks are gone. `limit` bounds the chunks of one event, and of these alone: with 0, chunks
        stay where they are, and so does an end behind them.
        """
        if self._started is not None:
            started, self._started = self._started, None
            return started
        if self._status is not None:
            status, self._status = self._status, None
            if isinstance(status, Ended):
                return self._last(status)
            return status
        if self.cut:
            return None
        if self._gap is not None:
            gap, self._gap = self._gap, None
            self._run.gap_told(gap)
            return gap
        run = self._run
        log = run.log
        if self.cursor < log.next:
            item = log.read(self.cursor, limit)
            return None if item is None else self._advance(item)
        if run.ended is not None and not self._ended:
            self._ended = True
            return run.ended
        return None

    def _advance(self, item: Chunks | Gap) -> Chunks | Gap:
        if isinstance(item, Chunks):
            self.cursor = item.first + len(item.payloads)
            self.taken_bytes += item.size_bytes
            if self._account is not None:
                self._account.sent_bytes += item.size_bytes
        else:
            self._move(item.last + 1)
            self._run.gap_told(item)
        self._run.reader_advanced()
        return item

    def _move(self, cursor: int) -> None:
        self.cursor = cursor
        self.taken_bytes = self._run.log.bytes_before(cursor)

    def _last(self, end: Ended) -> Ended:
        """Leave the run, having been told the end ahead of time; nothing is taken after it."""
        self._ended = True
        self.close()
        self.cut = True
        return end

    def note(self, status: Status) -> None:
        """Have a status taken next, in place of one that was not taken yet."""
        if not self.expired:
            self._status = status

    def expire_in(self, seconds: float) -> None:
        """End this reader in so many seconds, as `auth_expired`; 0 or less: at the loop's next turn."""
        self._expiry = timers.running().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        error = GatewayError("auth-expired", "The credential that this was asked for with has expired; come back with a new one")
        self._status = Ended(Outcome.AUTH_EXPIRED, self._run.log.next - 1, error=error)
        self.wake()

    def show(self, status: Status) -> None:
        """Note a new status and wake the reader."""
        self.note(status)
        self.wake()

    def shed(self, before_bytes: int) -> None:
        """Apply the overflow policy, LATEST or DISCONNECT, where the reader lags by more than it may.

        `before_bytes` is what the log's total was ahead of the newest batch, which nobody can be late for yet.
        """
        log = self._run.log
        if self.cut or self.cursor >= log.next or before_bytes - self.taken_bytes <= self.lag_bytes:
            return
        if self.options.overflow is Overflow.DISCONNECT:
            self.cut = True
        elif self.cursor < log.next - 1:
            newest = log.next - 1
            first = self.cursor if self._gap is None else self._gap.first
            self._gap = Gap(first, newest - 1, "slow_consumer")
            self._move(newest)
        else:
            return
        self.wake()

    def recount(self) -> None:
        """Find out anew what it has taken: its cursor was ahead of a log that is still being filled."""
        self.taken_bytes = self._run.log.bytes_before(self.cursor)

    def close(self) -> None:
        """Leave the run; idempotent. The last subscriber's leaving is the disconnect that the run's policy is about."""
        if not self._closed:
            self._closed = True
            if self._expiry is not None:
                self._expiry.cancel()
            # The reader's own method: with it, the two of them would be a cycle, which only the collector undoes.
            self.wake = _nothing
            self._run.reader_left(self)


def _nothing() -> None:
    """Stand in for the `wake` of a reader that has left."""
