"""Runs without I/O: a clock that the test turns, a fake pool, and the callbacks called by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.call import ToolCall
from gateway.caller import ANONYMOUS
from gateway.events import Chunks, Ended, Event
from gateway.runlog.base import RunRecorder
from gateway.runlog.budget import MemoryBudget
from gateway.runs.policy import Deadlines, OnDisconnect, ReaderOptions, RunLimits, RunPolicy
from gateway.runs.run import Run
from gateway.runs.subscription import Subscription
from tests.conftest import FakePool


class Clock:
    """The running loop's time and timers, which pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer(when, lambda: callback(*args))
        self.timers.append(timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        return self.call_at(self.now + delay, callback, *args)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.pending if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self.now = max(self.now, timer.when)
            timer.cancelled = True
            timer.callback()
        self.now = end

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]


class Timer:
    def __init__(self, when: float, callback: Callable[[], Any]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Owner:
    """A RunOwner that counts the endings."""

    def __init__(self) -> None:
        self.ended: list[Run] = []

    def run_ended(self, run: Run) -> None:
        self.ended.append(run)


class Reader:
    """A subscription and how often it was woken."""

    def __init__(self, run: Run, **options: Any) -> None:
        self.wakes = 0
        self.subscription: Subscription = run.subscribe(self._wake, ANONYMOUS, ReaderOptions(**options))

    def _wake(self) -> None:
        self.wakes += 1

    def take(self) -> Event | None:
        return self.subscription.take()

    def all(self) -> list[Event]:
        events = []
        while (event := self.subscription.take()) is not None:
            events.append(event)
        return events

    def payloads(self) -> list[bytes]:
        return [payload for event in self.all() if isinstance(event, Chunks) for payload in event.payloads]

    def close(self) -> None:
        self.subscription.close()


RUN_ID = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    for module in ("run", "registry"):
        monkeypatch.setattr(f"gateway.runs.{module}.timers.running", lambda: clock)
    return clock


@pytest.fixture
async def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def owner() -> Owner:
    return Owner()


StartRun = Callable[..., Run]


@pytest.fixture
def start(clock: Clock, pool: FakePool, owner: Owner) -> StartRun:
    """Start a run of `count`; keywords are the deadlines, and `timeout_s`."""

    def start(
        *,
        timeout_s: float = 60.0,
        limits: RunLimits | None = None,
        on_disconnect: str = "cancel",
        recorder: RunRecorder | None = None,
        budget: MemoryBudget | None = None,
        **deadlines: float,
    ) -> Run:
        policy = RunPolicy(OnDisconnect.parse("_on_disconnect", on_disconnect, limit_s=3600), Deadlines(**deadlines))
        run = Run(RUN_ID, ToolCall("count", {"count": 3}, timeout_s), policy, limits or RunLimits(), owner, budget, recorder=recorder)
        run.start(pool)  # type: ignore[arg-type]
        return run

    return start


def end_of(run: Run) -> Ended:
    assert run.ended is not None
    return run.ended
