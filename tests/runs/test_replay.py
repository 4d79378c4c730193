"""Replay that never lies: readers that come, go and come back at random see slices of one truth, with declared gaps only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.call import ToolCall
from gateway.caller import ANONYMOUS
from gateway.codec.sse import SseEncoder
from gateway.events import Chunks, Ended, Gap, Started
from gateway.runlog.budget import MemoryBudget
from gateway.runs.policy import CANCEL, CONTINUE, Leaving, OnDisconnect, Overflow, ReaderOptions, Role, RunLimits, RunPolicy
from gateway.runs.run import Run
from gateway.runs.subscription import Subscription
from tests.conftest import FakePool
from tests.runs.conftest import RUN_ID, Owner

LIMITS = RunLimits(log_bytes=6000, log_chunks=16)
# What still comes when the worker is made to wait.
WINDOW_BATCHES = 8
VISITORS = 4


@dataclass
class Visitor:
    """A client over all its visits: what it has seen, and the chunks that it was told it would not see."""

    role: Role
    overflow: Overflow
    joined_at: int
    # None while it is away.
    subscription: Subscription | None = None
    # The number of the last chunk that it knows of, as its Last-Event-ID would say; None before the first.
    last: int | None = None
    seen: dict[int, bytes] = field(default_factory=dict)
    missed: set[int] = field(default_factory=set)
    # Whether it took a chunk, or a gap, in this visit.
    has_read: bool = False

    @property
    def next(self) -> int:
        return self.joined_at if self.last is None else self.last + 1


class Visits:
    """One run and its visitors. An action does what clients or the worker do, at whoever the number names."""

    def __init__(self, on_disconnect: OnDisconnect, budget_bytes: int) -> None:
        self.truth: list[bytes] = []
        self.window = WINDOW_BATCHES
        self.encoded: dict[int, bytes] = {}
        self.visitors: list[Visitor] = []
        # The subscriber whose place is kept: the last that left, while nobody else came.
        self.kept: Visitor | None = None
        self.encoder = SseEncoder(RUN_ID, retry_ms=1)
        self.pool = FakePool()
        self.run = Run(RUN_ID, ToolCall("count", {}, 3600.0), RunPolicy(on_disconnect), LIMITS, Owner(), MemoryBudget(budget_bytes))
        self.run.start(self.pool)  # type: ignore[arg-type]

    def do(self, action: tuple[Any, ...]) -> None:
        name, *arguments = action
        getattr(self, name)(*arguments)
        self.check()

    def the_tool_yields(self, chunks: int, batches: int) -> None:
        call = self.pool.calls[0]
        for _ in range(batches):
            self.window = self.window - 1 if call.paused else WINDOW_BATCHES
            if self.run.ended is None and self.window >= 0:
                batch = [b'{"n":%d}' % (len(self.truth) + index) for index in range(chunks)]
                call.send_raw(*batch)
                self.truth += batch

    def the_tool_ends(self) -> None:
        if self.run.ended is None:
            self.pool.calls[0].end()

    def somebody_comes(self, role: Role, overflow: Overflow, lag: int, live: bool) -> None:
        if len(self.visitors) < VISITORS:
            visitor = Visitor(role, overflow, len(self.truth) + 1 if live else 1)
            self.visitors.append(visitor)
            self._visit(visitor, ReaderOptions(role, overflow, lag, live=live))

    def somebody_comes_back(self, who: int, lag: int) -> None:
        away = [visitor for visitor in self.visitors if visitor.subscription is None]
        if away:
            visitor = away[who % len(away)]
            self._visit(visitor, ReaderOptions(visitor.role, visitor.overflow, lag, after=visitor.next - 1))

    def somebody_reads(self, who: int, limit: int | None, times: int) -> None:
        if present := self._present():
            for _ in range(times):
                self._take(present[who % len(present)], limit)

    def somebody_leaves(self, who: int) -> None:
        if present := self._present():
            self._leave(present[who % len(present)])

    def check(self) -> None:
        """Nobody was lied to, and nothing grew beyond its bounds."""
        for visitor in self.visitors:
            # Each number is seen or declared as missed, never both, without a hole between the first and the last.
            assert not visitor.seen.keys() & visitor.missed
            assert visitor.seen.keys() | visitor.missed == set(range(visitor.joined_at, visitor.next))
            assert all(self.truth[number - 1] == payload for number, payload in visitor.seen.items())
        log = self.run.log
        assert log.next - 1 == len(self.truth)
        assert log.next - log.first <= LIMITS.log_chunks + 4 * (WINDOW_BATCHES + 1)

    def _present(self) -> list[Visitor]:
        return [visitor for visitor in self.visitors if visitor.subscription is not None]

    def _visit(self, visitor: Visitor, options: ReaderOptions) -> None:
        if visitor.role is Role.SUBSCRIBER:
            # Nothing was lost inside the grace for the one whose place was kept.
            if self.kept is visitor and self.run.ended is None:
                assert not isinstance(self.run.log.read(visitor.next), Gap)
            self.kept = None
        visitor.has_read = False
        visitor.subscription = self.run.subscribe(lambda: self._woken(visitor), ANONYMOUS, options)

    def _woken(self, visitor: Visitor) -> None:
        if visitor.subscription is not None and visitor.subscription.cut:
            self._leave(visitor)

    def _leave(self, visitor: Visitor) -> None:
        assert visitor.subscription is not None
        cursor = visitor.subscription.cursor
        visitor.subscription.close()
        visitor.subscription = None
        others = [other for other in self._present() if other.role is Role.SUBSCRIBER]
        if visitor.role is Role.SUBSCRIBER and self.run.policy.on_disconnect.kind is Leaving.GRACE and not others:
            # What was gone before it left is not kept.
            is_there = cursor == visitor.next and not isinstance(self.run.log.read(cursor), Gap)
            self.kept = visitor if is_there else None

    def _take(self, visitor: Visitor, limit: int | None) -> None:
        if visitor.subscription is None:
            return
        event = visitor.subscription.take(limit)
        if isinstance(event, Started):
            assert event.resumed_from is None or event.resumed_from == visitor.next
        elif isinstance(event, Chunks):
            self._check_bytes(event)
            assert event.first == visitor.next
            assert limit is None or len(event.payloads) <= limit
            visitor.seen.update(enumerate(event.payloads, event.first))
            visitor.last = event.first + len(event.payloads) - 1
            visitor.has_read = True
        elif isinstance(event, Gap):
            assert event.first == visitor.next
            assert event.last < len(self.truth) or event.reason == "evicted"
            assert event.reason == "evicted" or visitor.overflow is Overflow.LATEST
            # For who makes the worker wait, only what was gone before it came.
            assert not (visitor.subscription.holds and visitor.has_read)
            visitor.missed.update(range(event.first, event.last + 1))
            visitor.last = event.last
            visitor.has_read = True
        elif isinstance(event, Ended):
            assert event is self.run.ended
            assert event.chunks == visitor.next - 1 == len(self.truth)

    def _check_bytes(self, chunks: Chunks) -> None:
        """A chunk's event is the same bytes for everybody and every time."""
        events = self.encoder.encode(chunks).split(b"\n\n")[:-1]
        assert len(events) == len(chunks.payloads)
        for number, event in enumerate(events, chunks.first):
            assert self.encoded.setdefault(number, event) == event


WHO = st.integers(0, VISITORS - 1)
LAG = st.sampled_from([1, 500, 4000])
YIELDS = st.tuples(st.just("the_tool_yields"), st.integers(1, 4), st.integers(1, 12))
READS = st.tuples(st.just("somebody_reads"), WHO, st.none() | st.integers(0, 4), st.integers(1, 8))
ACTIONS = st.one_of(
    YIELDS,
    YIELDS,
    READS,
    READS,
    st.tuples(st.just("somebody_comes"), st.sampled_from(Role), st.sampled_from(Overflow), LAG, st.booleans()),
    st.tuples(st.just("somebody_comes_back"), WHO, LAG),
    st.tuples(st.just("somebody_leaves"), WHO),
)
POLICIES = st.sampled_from([CONTINUE, OnDisconnect(Leaving.GRACE, 3600.0), CANCEL])


@settings(max_examples=150, suppress_health_check=[HealthCheck.large_base_example, HealthCheck.data_too_large, HealthCheck.too_slow])
@given(st.lists(ACTIONS, min_size=30, max_size=80), POLICIES, st.sampled_from([10**9, 4000]))
async def test_every_visitors_history_is_a_slice_of_the_truth(
    actions: Sequence[tuple[Any, ...]], on_disconnect: OnDisconnect, budget_bytes: int
) -> None:
    visits = Visits(on_disconnect, budget_bytes)
    visits.do(("somebody_comes", Role.SUBSCRIBER, Overflow.BLOCK, 4000, False))
    for action in actions:
        visits.do(action)
    visits.do(("the_tool_ends",))
    # In the end everybody comes back and reads to the end.
    for who in range(VISITORS):
        visits.do(("somebody_comes_back", who, 500))
    for visitor in visits._present():
        while not visitor.subscription.finished:  # type: ignore[union-attr]
            visits._take(visitor, 3)
            visits.check()
            if visitor.subscription is None or visitor.subscription.cut:
                break
    await asyncio.sleep(0)
