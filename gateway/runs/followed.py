"""A run that another gateway executes, as this one's readers have it: a copy of its log, filled while somebody reads.

Made by SharedRuns from a run's record; a FollowSink of the shared log. The copy begins with the first reader (or one
who waits for the end) and goes with the last, however many there are in between. A reader here can't make the worker
wait: who is slower than the copy's bounds allow sees a gap. Subscribers count for the run's policy as those of its owner do.

    state      left when
    idle       somebody reads, or waits for the end -> followed
    followed   nobody does any more -> idle, and the copy is dropped; the end has come -> ended
    ended      nobody reads any more: it is forgotten
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.caller import Caller
from gateway.events import Chunks, Ended, Outcome, Status, Timing
from gateway.runlog.budget import MemoryBudget
from gateway.runlog.memory import MemoryLog
from gateway.runlog.shared.following import Following
from gateway.runlog.shared.records import RunRecord
from gateway.runs.policy import READ_ALL, Cause, ReaderOptions, RunLimits
from gateway.runs.source import RunSource
from gateway.runs.subscription import Subscription
from gateway.telemetry.tally import RunTally


class RunFollower(Protocol):
    """Who reaches other gateways: SharedRuns."""

    def follow(self, run: FollowedRun) -> None:
        """Begin to deliver the run to itself, and set its `following`; called when it is needed and isn't followed."""

    def unfollow(self, run: FollowedRun) -> None:
        """Nobody needs the run any more."""

    def ask_to_cancel(self, run: FollowedRun) -> None:
        """Have the run's owner cancel it."""


class FollowedRun(RunSource):
    """One run of another gateway. `record` is what the log knew of it when it was last looked up."""

    waits_for_readers = False

    def __init__(
        self, record: RunRecord, limits: RunLimits, budget: MemoryBudget, follower: RunFollower, tally: RunTally | None = None
    ) -> None:
        self._limits = limits
        self._budget = budget
        super().__init__(
            record.id,
            caller_id=record.caller,
            ticket=record.ticket,
            tool=record.tool,
            streaming=record.kind == "stream",
            session_id=record.session,
            on_disconnect=record.policy,
            log=self._new_log(),
            tally=tally,
        )
        self.pool = record.pool
        self.record = record
        # Set while somebody needs it, until the end.
        self.following: Following | None = None
        self._follower = follower
        self._status: Status | None = None
        self._was_seen_waiting = False
        # How the run ended, as far as this copy or one before it has heard.
        self._last_end: Ended | None = None
        self._note_worker()

    @property
    def state(self) -> str:
        end = self.known_end
        if end is not None:
            return str(end.outcome)
        return self.record.state if self._status is None else self._status.state

    @property
    def chunks(self) -> int:
        return max(self.record.chunks, self.log.next - 1)

    @property
    def known_end(self) -> Ended | None:
        return self.ended or self._last_end or self.record.ended

    @property
    def is_needed(self) -> bool:
        """Whether somebody reads it, or waits for its end."""
        return bool(self._readers or self._waiters)

    def refresh(self, record: RunRecord) -> None:
        """Take what the log says of the run now."""
        if self.record.ended is None:
            self.record = record
            self._note_worker()

    def details(self) -> Mapping[str, Any]:
        return self.record.details

    def timing(self) -> Timing:
        end = self.known_end
        return end.timing if end is not None and end.timing is not None else Timing(None, None, 0)

    def subscribe(self, wake: Callable[[], None], caller: Caller, options: ReaderOptions = READ_ALL) -> Subscription:
        """See RunSource; the first one begins the copy."""
        self._follow()
        reader = super().subscribe(wake, caller, options)
        if self._was_seen_waiting and self._status is not None:
            reader.note(self._status)
        return reader

    def when_ended(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See RunSource."""
        self._follow()
        forget = super().when_ended(callback)

        def forget_and_look() -> None:
            forget()
            self._look()

        return forget_and_look

    def cancel(self, cause: Cause) -> None:
        """Have the owner cancel it; the end is the answer. `cause` is the owner's to say."""
        if self.known_end is None:
            self._follower.ask_to_cancel(self)

    def cut(self) -> None:
        """Cut all readers, without an end, and let nobody wait for it: the run goes on elsewhere, and they may ask there."""
        for reader in self._readers:
            reader.cut = True
        self._tell_end()

    def reader_left(self, subscription: Subscription) -> None:
        super().reader_left(subscription)
        self._look()

    # what the log delivers: FollowSink

    def on_batch(self, batch: Chunks) -> None:
        attributes = None if batch.attributes is None else {number - batch.first: value for number, value in batch.attributes.items()}
        before_bytes = self.log.total_bytes
        self.log.append(batch.payloads, sum(map(len, batch.payloads)), attributes)
        for reader in self._sheds:
            reader.recount()
        self._wake_all()
        self._shed(before_bytes)

    def on_status(self, status: Status) -> None:
        # As for the owner's readers: that it waits is news only while it does, and that it runs to who saw it wait.
        is_news = self.record.state == "queued" if status.state == "queued" else self._was_seen_waiting
        self._was_seen_waiting = status.state == "queued" and is_news
        self._status = status
        self.worker_id = status.details.get("worker", self.worker_id)
        if is_news:
            self._show(status)

    def on_gap(self, first: int, last: int) -> None:
        self.log.skip(last + 1)
        self._wake_all()

    def on_end(self, ended: Ended) -> None:
        self.following = None
        if self.ended is None:
            self.ended = ended
            if ended.outcome is not Outcome.EXPIRED:
                self._last_end = ended
                self._note_worker()
            self.log.end()
            self._tell_end()
            self._look()

    def _subscriber_came(self) -> None:
        self.tell_subscribers()

    def _subscriber_left(self, cursor: int) -> None:
        self.tell_subscribers()

    def tell_subscribers(self) -> None:
        """Say to the owner how many subscribers there are here."""
        if self.following is not None:
            self.following.readers(self._subscribers)

    def _cursor_after(self, after: int) -> int:
        # As it is said: the owner's own readers may be ahead of the log by some milliseconds, and so may this one have been.
        return after + 1

    def _follow(self) -> None:
        """Begin the copy, where there is none."""
        if not self.is_needed:
            self.ended = self._status = None
            self._was_seen_waiting = False
            self.log = self._new_log()
            self._follower.follow(self)

    def _look(self) -> None:
        """Drop the copy that nobody needs any more."""
        if not self.is_needed:
            self._follower.unfollow(self)
            self.log.close()

    def _note_worker(self) -> None:
        end = self.known_end
        if end is not None:
            self.worker_id = end.metadata.get("worker_id", self.worker_id)

    def _new_log(self) -> MemoryLog:
        limits = self._limits
        return MemoryLog(limit_bytes=limits.log_bytes, limit_chunks=limits.log_chunks, budget=self._budget)
