from __future__ import annotations

from gateway.runlog.budget import MemoryBudget
from gateway.runlog.memory import MemoryLog
from tests.runlog.test_memory import Holder

BATCH = b"x" * 1000


def log_in(budget: MemoryBudget, batches: int = 0) -> MemoryLog:
    log = MemoryLog(limit_bytes=10**9, limit_chunks=10**9, budget=budget)
    fill(log, batches)
    return log


def fill(log: MemoryLog, batches: int) -> None:
    for _ in range(batches):
        log.append([BATCH], len(BATCH))


def test_the_total_of_all_logs_is_bounded() -> None:
    budget = MemoryBudget(100_000)
    logs = [log_in(budget) for _ in range(20)]
    for _ in range(30):
        for log in logs:
            fill(log, 1)
            assert budget.size_bytes == sum(other.size_bytes for other in logs)
            assert budget.size_bytes <= 100_000


def test_what_ended_first_goes_first() -> None:
    budget = MemoryBudget(100_000)
    older, newer, live = (log_in(budget, 20) for _ in range(3))
    newest = log_in(budget, 15)
    older.end()
    newer.end()
    fill(live, 8)
    assert older.first > 1
    assert (newer.first, newest.first, live.first) == (1, 1, 1)
    fill(live, 20)
    assert older.size_bytes == 0
    assert newer.first > 1
    assert (newest.first, live.first) == (1, 1)


def test_then_the_oldest_batches_of_the_largest_live_log() -> None:
    budget = MemoryBudget(100_000)
    large, small = log_in(budget, 60), log_in(budget, 15)
    fill(small, 10)
    assert large.first > 1
    assert small.first == 1


def test_logs_that_grow_are_brought_to_the_same_size() -> None:
    budget = MemoryBudget(100_000)
    logs = [log_in(budget, batches) for batches in (5, 60, 10)]
    for _ in range(200):
        for log in logs[1:]:
            fill(log, 1)
    assert logs[0].first == 1
    assert abs(logs[1].size_bytes - logs[2].size_bytes) < 20_000


def test_what_a_place_needs_stays_above_the_limit_and_is_searched_for_seldom() -> None:
    budget = MemoryBudget(500_000)
    log = log_in(budget)
    place = Holder(1)
    log.places.append(place)
    reclaims = 0
    original = budget.reclaim

    def reclaim() -> None:
        nonlocal reclaims
        reclaims += 1
        original()

    budget.reclaim = reclaim  # type: ignore[method-assign]
    fill(log, 4000)
    assert log.first == 1
    # Once for each step (1/64 of the limit) of growth, not for each batch.
    assert reclaims <= log.size_bytes / (500_000 // 64) + 1 < 1000
    place.cursor = log.next
    log.shrink(log.size_bytes // 2, keep_batches=0)
    assert budget.threshold_bytes <= budget.size_bytes + 500_000 // 64
    fill(log, 8)  # one step
    assert budget.size_bytes <= 500_000
    assert budget.threshold_bytes == 500_000


def test_a_live_log_keeps_its_newest_batch() -> None:
    budget = MemoryBudget(1000)
    log = log_in(budget, 5)
    assert log.next - log.first == 1


def test_a_closed_log_is_no_part_of_the_budget() -> None:
    budget = MemoryBudget(100_000)
    log, ended = log_in(budget, 10), log_in(budget, 10)
    ended.end()
    log.close()
    ended.close()
    assert budget.size_bytes == 0
    assert (budget._live, budget._ended) == ({}, {})
