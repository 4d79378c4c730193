"""What goes first when memory is short: looked at by hand, with runs that a test fills."""

from __future__ import annotations

import pytest

from gateway.errors import GatewayError
from gateway.runlog.budget import MemoryBudget
from gateway.runs.policy import RunLimits
from gateway.runs.pressure import MemoryWatch
from gateway.runs.run import Run
from tests.conftest import FakeCall, FakePool
from tests.runs.conftest import Clock, Reader, StartRun, end_of

LIMIT = 1_000_000
LIMITS = RunLimits(plain_log_bytes=4_000_000)


class Held:
    """A part that holds what a test says."""

    def __init__(self) -> None:
        self.bytes = 0


@pytest.fixture
def budget() -> MemoryBudget:
    return MemoryBudget(10 * LIMIT)


@pytest.fixture
def runs() -> list[Run]:
    return []


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def watch(clock: Clock, monkeypatch: pytest.MonkeyPatch, budget: MemoryBudget, runs: list[Run], held: Held) -> MemoryWatch:
    monkeypatch.setattr("gateway.runs.pressure.timers.running", lambda: clock)
    watch = MemoryWatch(budget, lambda: runs, LIMIT)
    watch.sources["connections"] = lambda: held.bytes
    return watch


async def filled(start: StartRun, pool: FakePool, runs: list[Run], budget: MemoryBudget, size: int) -> tuple[Run, FakeCall]:
    run = start(limits=LIMITS, budget=budget)
    runs.append(run)
    call = await pool.next_call()
    for _ in range(size // 10_000):
        call.send_raw(b"x" * 10_000)
    return run, call


async def test_logs_may_hold_what_the_others_leave(
    watch: MemoryWatch, budget: MemoryBudget, runs: list[Run], held: Held, start: StartRun, pool: FakePool
) -> None:
    run, call = await filled(start, pool, runs, budget, 800_000)
    call.end()
    assert end_of(run)
    watch.look()
    assert budget.size_bytes > 800_000
    held.bytes = 600_000
    watch.look()
    assert budget.size_bytes <= 400_000
    assert (watch.refuses, run.log.first > 1) == (False, True)
    held.bytes = 0
    watch.look()
    assert budget.limit_bytes == LIMIT


async def test_new_runs_are_refused_until_there_is_room_again(watch: MemoryWatch, held: Held) -> None:
    for size, refuses in ((LIMIT, False), (LIMIT + 1, True), (950_000, True), (900_000, False), (950_000, False)):
        held.bytes = size
        watch.look()
        assert watch.refuses is refuses, size
    error = watch.refusal()
    assert (error.problem, error.http_status, watch.refused) == ("memory-pressure", 503, 1)
    assert 2.5 <= (error.retry_after_s or 0) <= 7.5


async def test_the_readers_that_are_furthest_behind_are_cut_and_only_as_many_as_needed(
    watch: MemoryWatch, budget: MemoryBudget, runs: list[Run], held: Held, start: StartRun, pool: FakePool
) -> None:
    readers = []
    for size in (100_000, 500_000, 300_000):
        run = start(limits=LIMITS, budget=budget, on_disconnect="continue")
        runs.append(run)
        readers.append(Reader(run))
        call = await pool.next_call()
        for _ in range(size // 10_000):
            call.send_raw(b"x" * 10_000)
    held.bytes = 300_000
    watch.look()
    assert [reader.subscription.cut for reader in readers] == [False, True, False]
    assert (watch.cut, watch.refuses) == (1, True)
    # Woken, it leaves: what it held back is free at the next look.
    readers[1].close()
    watch.look()
    assert [reader.subscription.cut for reader in readers] == [False, True, False]
    assert budget.size_bytes + held.bytes <= LIMIT


async def test_nothing_is_watched_without_a_limit_and_a_changed_one_holds_at_once(watch: MemoryWatch, clock: Clock, held: Held) -> None:
    held.bytes = 2 * LIMIT
    watch.change(None)
    watch.look()
    assert (watch.refuses, clock.pending) == (False, [])
    watch.change(LIMIT)
    clock.advance(1.0)
    assert watch.refuses
    watch.change(None)
    assert not watch.refuses
    watch.stop()
    assert clock.pending == []


async def test_the_watch_goes_on_after_a_look_that_failed(watch: MemoryWatch, clock: Clock) -> None:
    def fail() -> int:
        raise GatewayError("internal", "no")

    watch.sources["broken"] = fail
    watch.start()
    with pytest.raises(GatewayError):
        clock.advance(0.6)
    assert len(clock.pending) == 1
