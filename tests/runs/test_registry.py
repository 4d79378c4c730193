from __future__ import annotations

import pytest

from gateway.call import ToolCall
from gateway.caller import ANONYMOUS
from gateway.events import Chunks, Gap
from gateway.runs.policy import Cause, RunLimits, RunPolicy
from gateway.runs.registry import RunRegistry
from gateway.runs.run import Run
from tests.conftest import FakePool
from tests.runs.conftest import Clock, Reader


class Shelf:
    """A registry, and runs for it."""

    def __init__(self, pool: FakePool, *, kept_limit: int = 100, ttl_s: float = 60.0) -> None:
        self.forgotten: list[Run] = []
        self.registry = RunRegistry(kept_limit=kept_limit, ttl_s=ttl_s, on_forgotten=self.forgotten.append)
        self._pool = pool
        self._count = 0

    def run_ended(self, run: Run) -> None:
        self.registry.end(run)

    def open(self, tool: str = "count") -> Run:
        self._count += 1
        run = Run(f"r_01K3ZQ4M5N{self._count:016d}", ToolCall(tool, {}, 3600.0), RunPolicy(), RunLimits(), self)
        self.registry.add(run)
        run.start(self._pool)  # type: ignore[arg-type]
        return run

    def ended(self, tool: str = "count") -> Run:
        run = self.open(tool)
        self._pool.calls[-1].send(1)
        self._pool.calls[-1].end()
        return run


@pytest.fixture
async def shelf(clock: Clock, pool: FakePool) -> Shelf:
    return Shelf(pool)


def test_find_knows_open_runs_and_ended_ones_until_their_time_is_over(shelf: Shelf, clock: Clock) -> None:
    still_open, ended = shelf.open(), shelf.ended()
    clock.advance(59)
    assert (shelf.registry.find(still_open.id), shelf.registry.find(ended.id)) == (still_open, ended)
    clock.advance(2)
    assert (shelf.registry.find(still_open.id), shelf.registry.find(ended.id)) == (still_open, None)
    assert shelf.forgotten == [ended]


def test_the_time_counts_from_the_end(shelf: Shelf, clock: Clock, pool: FakePool) -> None:
    run = shelf.open()
    clock.advance(600)
    pool.calls[0].end()
    clock.advance(59)
    assert shelf.registry.find(run.id) is run


def test_a_forgotten_run_is_expired_for_a_while_and_then_unknown(shelf: Shelf, clock: Clock) -> None:
    run = shelf.ended()
    assert not shelf.registry.is_expired(run.id, ANONYMOUS)
    clock.advance(61)
    assert shelf.registry.is_expired(run.id, ANONYMOUS)
    clock.advance(62)
    assert not shelf.registry.is_expired(run.id, ANONYMOUS)
    assert clock.pending == []


def test_more_than_the_limit_are_not_kept(clock: Clock, pool: FakePool) -> None:
    shelf = Shelf(pool, kept_limit=2)
    runs = [shelf.ended() for _ in range(5)]
    assert [shelf.registry.find(run.id) for run in runs] == [None, None, None, *runs[3:]]
    assert [shelf.registry.is_expired(run.id, ANONYMOUS) for run in runs] == [False, True, True, False, False]
    assert shelf.forgotten == runs[:3]


def test_a_forgotten_runs_chunks_go_when_its_last_reader_does(shelf: Shelf, clock: Clock) -> None:
    run = shelf.ended()
    reader = Reader(run)
    clock.advance(61)
    assert shelf.registry.find(run.id) is None
    assert reader.payloads() == [b"1"]
    reader.close()
    assert run.log.read(1) == Gap(1, 1, "evicted")


def test_a_forgotten_run_without_readers_gives_its_chunks_back_at_once(shelf: Shelf, clock: Clock) -> None:
    run = shelf.ended()
    assert isinstance(run.log.read(1), Chunks)
    clock.advance(61)
    assert run.log.size_bytes == 0


def test_one_timer_serves_all(shelf: Shelf, clock: Clock) -> None:
    for _ in range(50):
        shelf.ended()
        clock.advance(0.1)
    assert len(clock.pending) == 1


# pages


def ids(runs: list[Run]) -> list[str]:
    return [run.id for run in runs]


def test_pages_are_newest_first_and_complete(shelf: Shelf) -> None:
    runs = [shelf.ended() if number % 3 else shelf.open() for number in range(25)]
    listed: list[Run] = []
    after, pages = None, 0
    while True:
        page = shelf.registry.page(ANONYMOUS, limit=10, after=after)
        listed += page.runs
        pages += 1
        if page.next is None:
            break
        after = page.next
    assert (ids(listed), pages) == (ids(runs)[::-1], 3)


def test_a_page_that_is_just_full_has_no_next(shelf: Shelf) -> None:
    for _ in range(10):
        shelf.ended()
    assert shelf.registry.page(ANONYMOUS, limit=10).next is None


def test_a_page_begins_after_an_id_that_is_gone(shelf: Shelf, clock: Clock) -> None:
    gone = shelf.ended()
    clock.advance(30)
    newer = shelf.ended()
    page = shelf.registry.page(ANONYMOUS, limit=1)
    assert (page.runs, page.next) == ([newer], newer.id)
    clock.advance(32)
    assert shelf.registry.find(gone.id) is None
    assert shelf.registry.page(ANONYMOUS, limit=1, after=newer.id).runs == []


def test_pages_are_filtered_by_state_and_tool(shelf: Shelf) -> None:
    ended, still_open, cancelled = shelf.ended(), shelf.open("opaque"), shelf.open("opaque")
    cancelled.cancel(Cause.CLIENT)
    pages = shelf.registry.page
    assert ids(pages(ANONYMOUS, limit=9, state="ok").runs) == [ended.id]
    assert ids(pages(ANONYMOUS, limit=9, tool="opaque").runs) == [cancelled.id, still_open.id]
    assert ids(pages(ANONYMOUS, limit=9, tool="opaque", state="running").runs) == [still_open.id]
    assert pages(ANONYMOUS, limit=9, tool="nobody").runs == []
