"""A run as its readers have it, whichever gateway executes it: its log, its readers, its end.

`Run` (run.py) is one that is executed here, `FollowedRun` (followed.py) one of another gateway. What they have in
common stands here: readers come and go, share their encoders, are shown each status and woken for what is new; who waits
for nothing but the end is told of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mypy_extensions import mypyc_attr

from gateway.call import ToolCall
from gateway.caller import Caller
from gateway.correlation import Trace
from gateway.events import Ended, Gap, Started, Status, Timing
from gateway.runlog.memory import MemoryLog
from gateway.runs.policy import READ_ALL, Cause, Overflow, ReaderOptions, Role, RunPolicy
from gateway.runs.quotas import Account
from gateway.runs.subscription import Subscription
from gateway.telemetry.tally import RunTally

Item = TypeVar("Item")


# followed.py is not compiled, and derives from this.
@mypyc_attr(allow_interpreted_subclasses=True)
class RunSource:
    """What a front door needs of a run. `on_disconnect` is its policy's text, `streaming` False for a unary call.

    `caller_id` is whose it is, `ticket` the one-time ticket that it was started with, None without one.
    """

    # Ten thousand ended runs are kept: an instance's dict would be the largest part of each.
    __slots__ = (
        "_readers",
        "_released",
        "_shared",
        "_sheds",
        "_subscribers",
        "_waiters",
        "_was_read",
        "account",
        "caller_id",
        "ended",
        "headers",
        "id",
        "log",
        "on_disconnect",
        "pool",
        "session_id",
        "streaming",
        "tally",
        "ticket",
        "tool",
        "trace",
        "worker_id",
    )

    # Whether its worker waits for readers that must lose nothing; else they see a gap where they are too slow.
    waits_for_readers = True

    def __init__(
        self,
        run_id: str,
        *,
        caller_id: str,
        ticket: str | None,
        tool: str,
        streaming: bool,
        session_id: str | None,
        on_disconnect: str,
        log: MemoryLog,
        tally: RunTally | None = None,
    ) -> None:
        """`tally` counts what readers are told for the operator; None: nobody does."""
        self.id = run_id
        self.caller_id = caller_id
        self.ticket = ticket
        self.tool = tool
        self.streaming = streaming
        self.session_id = session_id
        self.on_disconnect = on_disconnect
        self.log = log
        self.tally = tally
        # Its caller's; None for one who isn't limited.
        self.account: Account | None = None
        self._was_read = False
        # Hears what becomes of the run, until its end; None: nobody does.
        self.trace: Trace | None = None
        self.ended: Ended | None = None
        # What an upstream has said of its answer ahead of it; known where the run is executed only.
        self.headers: Sequence[tuple[str, str]] = ()
        self.pool: str | None = None
        self.worker_id: str | None = None
        # Tuples: one who leaves while all are being told must not make another one be passed over.
        self._readers: tuple[Subscription, ...] = ()
        # Those of them that are skipped or cut when they lag.
        self._sheds: tuple[Subscription, ...] = ()
        self._subscribers = 0
        # Who waits for nothing but the end.
        self._waiters: tuple[Callable[[], None], ...] = ()
        # What the readers share, by name; None while nobody reads.
        self._shared: dict[str, Any] | None = None
        self._released = False

    @property
    def state(self) -> str:
        """`queued`, `running`, or the outcome."""
        raise NotImplementedError

    @property
    def place(self) -> tuple[int, int] | None:
        """The place in the pool's queue and how many wait there; None when it does not wait."""
        return None

    @property
    def readers(self) -> tuple[Subscription, ...]:
        """Who reads now."""
        return self._readers

    @property
    def chunks(self) -> int:
        """How many chunks there were so far."""
        return self.log.next - 1

    @property
    def known_end(self) -> Ended | None:
        """How the run ended, even where its readers have not got so far yet; None while it hasn't."""
        return self.ended

    def details(self) -> Mapping[str, Any]:
        """Return what its start events say besides the run and its tool; made for each reader, since ended runs are kept."""
        raise NotImplementedError

    @property
    def trace_id(self) -> str | None:
        """The trace that the run is part of; None where it is in none."""
        found: str | None = self.details().get("trace_id")
        return found

    def timing(self) -> Timing:
        """Return how long it took so far."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.tool}: {self.state}, {self.chunks} chunks, {len(self._readers)} readers>"

    def subscribe(self, wake: Callable[[], None], caller: Caller, options: ReaderOptions = READ_ALL) -> Subscription:
        """Return a new reader, which ends when its caller's time is over; `wake` is not called before that.

        Raises:
            GatewayError: `quota-exceeded`, the run's caller has read too much within a minute. A run's first reader comes with its start.
        """
        if self.account is not None and self._was_read:
            self.account.check_bytes()
        self._was_read = True
        # Or it would pin, from its place on, what another one has just taken and nobody needs any more.
        self.log.trim()
        # A reader that begins live is told so as one that comes back is: its first event has no id to come back to the start by.
        after = self.chunks if options.live else options.after
        cursor = 1 if after is None else self._cursor_after(after)
        resumed_from = None if after is None else cursor
        reader = Subscription(self, Started(self.id, self.tool, self.details(), resumed_from), cursor, wake, options)
        self._readers += (reader,)
        if reader.holds and self.waits_for_readers:
            self.log.places.append(reader)
        elif options.overflow is not Overflow.BLOCK:
            self._sheds += (reader,)
        if options.role is Role.SUBSCRIBER:
            self._subscribers += 1
            self._subscriber_came()
        if self.trace is not None:
            self.trace.reader(joined=True, role=options.role.value)
        if caller.expires_at is not None:
            reader.expire_in(caller.expires_at - time.time())
        return reader

    def shared(self, name: str) -> Any:
        """Return what all readers of this run have in common under a name: an encoder; None where none of them has made it yet."""
        return None if self._shared is None else self._shared.get(name)

    def share(self, name: str, common: Any) -> None:
        """Have all readers use what one of them has made, for as long as somebody reads."""
        if self._shared is None:
            self._shared = {}
        self._shared[name] = common

    def when_ended(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a callback called once the run has ended, if it hasn't yet; return what takes that back, idempotent.

        It is also called where the end can't be waited for here any more: `known_end` says which it is.
        """
        self._waiters += (callback,)

        def forget() -> None:
            self._waiters = _without(self._waiters, callback)

        return forget

    def cancel(self, cause: Cause) -> None:
        """End the run as cancelled, whatever it is doing; idempotent."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of the log of a run that has ended, once the readers that it still has are gone."""
        self._released = True
        if not self._readers:
            self.log.close()

    # the readers' news: what a subscription needs of its run

    def reader_advanced(self) -> None:
        """A reader has taken something."""

    def gap_told(self, gap: Gap) -> None:
        """A reader has taken a gap."""
        if self.tally is not None:
            self.tally.gap_told(gap.reason, gap.last - gap.first + 1)
        if self.trace is not None:
            self.trace.gap(gap.first, gap.last, gap.reason)

    def reader_left(self, subscription: Subscription) -> None:
        """The reader is gone."""
        if self.trace is not None:
            self.trace.reader(joined=False, role=subscription.options.role.value)
        self._readers = _without(self._readers, subscription)
        if subscription.holds and self.waits_for_readers:
            self.log.places.remove(subscription)
        elif self._sheds:
            self._sheds = _without(self._sheds, subscription)
        if not self._readers:
            self._shared = None
            if self._released:
                self.log.close()
        if subscription.options.role is Role.SUBSCRIBER:
            self._subscribers -= 1
            self._subscriber_left(subscription.cursor)
        # At once: else one who came now would pin what this one did, and the next one more than that.
        self.log.trim()
        self.reader_advanced()

    def _cursor_after(self, after: int) -> int:
        """Return where a reader goes on that says what its last chunk was; there may never have been one of that number."""
        return min(after, self.chunks) + 1

    def _subscriber_came(self) -> None:
        """There is a subscriber more."""

    def _subscriber_left(self, cursor: int) -> None:
        """There is one less; it had taken everything ahead of `cursor`."""

    # what happens, told to them

    def _shed(self, before_bytes: int) -> None:
        """Skip or cut those who lag too far now; `before_bytes`: the log's total ahead of the newest batch."""
        # Who is cut leaves at once, which may end the run.
        for reader in self._sheds:
            reader.shed(before_bytes)

    def _wake_all(self) -> None:
        for reader in self._readers:
            reader.wake()

    def _show(self, status: Status) -> None:
        for reader in self._readers:
            reader.show(status)

    def _tell_end(self) -> None:
        """Wake everybody: `ended` is set, or all readers are cut."""
        self._wake_all()
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            waiter()


def _without(items: tuple[Item, ...], gone: Item) -> tuple[Item, ...]:
    """Return the items but for one; it need not be among them."""
    return () if len(items) == 1 and items[0] is gone else tuple(item for item in items if item is not gone)


def start_details(run_id: str, call: ToolCall, policy: RunPolicy, *, heartbeat_s: float, idle_s: float | None = None) -> dict[str, Any]:
    """Return what the start events of a run say besides the run and its tool. `idle_s`: the pool's limit on a silence."""
    details: dict[str, Any] = {"on_disconnect": str(policy.on_disconnect), "timeout_ms": int(call.timeout_s * 1000)}
    deadlines = policy.deadlines
    if deadlines.queue_s is not None:
        details["queue_timeout_ms"] = int(deadlines.queue_s * 1000)
    if deadlines.first_chunk_s is not None:
        details["first_chunk_timeout_ms"] = int(deadlines.first_chunk_s * 1000)
    if (idle_s := deadlines.idle_s or idle_s) is not None:
        details["idle_timeout_ms"] = int(idle_s * 1000)
    details["heartbeat_ms"] = int(heartbeat_s * 1000)
    uri = f"/v1/runs/{run_id}"
    details["links"] = {"events": f"{uri}/events", "cancel": f"{uri}/cancel"}
    if (trace_id := call.correlation.trace_id) is not None:
        details["trace_id"] = trace_id
    return details
