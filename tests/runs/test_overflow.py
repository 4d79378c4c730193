"""Readers that lag: the worker waits for them, they are moved to the newest chunk, or they are cut."""

from __future__ import annotations

from gateway.events import Chunks, Ended, Gap, Started, Status
from gateway.runs.policy import Overflow, RunLimits
from tests.conftest import FakePool
from tests.runs.conftest import Reader, StartRun


def test_latest_is_moved_to_the_newest_chunk_and_told(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run, overflow=Overflow.LATEST, lag_bytes=600)
    for number in range(1, 11):
        pool.calls[0].send("x" * 100, number)
    assert pool.calls[0].pauses == 0
    events = reader.all()
    assert isinstance(events[0], Started)
    gap, *chunks = events[1:]
    assert isinstance(gap, Gap)
    assert (gap.first, gap.reason) == (1, "slow_consumer")
    numbers = [number for batch in chunks if isinstance(batch, Chunks) for number in range(batch.first, batch.first + len(batch.payloads))]
    assert numbers == list(range(gap.last + 1, 21))


def test_latest_that_keeps_up_loses_nothing(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run, overflow=Overflow.LATEST, lag_bytes=1)
    payloads = []
    for number in range(100):
        pool.calls[0].send("x" * 1000, number)
        payloads += reader.payloads()
    assert len(payloads) == 200


def test_latest_that_is_moved_twice_before_it_looks_has_one_gap(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run, overflow=Overflow.LATEST, lag_bytes=100)
    for number in range(1, 101):
        pool.calls[0].send(number)
    gaps = [event for event in reader.all() if isinstance(event, Gap)]
    assert len(gaps) == 1
    assert reader.subscription.cursor == 101


def test_latest_that_is_skipped_still_hears_the_end(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run, overflow=Overflow.LATEST, lag_bytes=100)
    for number in range(1, 101):
        pool.calls[0].send(number)
    pool.calls[0].end()
    events = reader.all()
    assert events[-1] is run.ended
    assert sum(isinstance(event, Ended) for event in events) == 1


def test_latest_with_a_limit_of_nothing_still_hears_of_the_gap(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run, overflow=Overflow.LATEST, lag_bytes=100)
    for number in range(1, 101):
        pool.calls[0].send(number)
    taken = [reader.subscription.take(0) for _ in range(3)]
    assert [type(event) for event in taken] == [Started, Gap, type(None)]


def test_disconnect_cuts_the_reader_and_nobody_else(start: StartRun, pool: FakePool) -> None:
    run = start()
    slow = Reader(run, overflow=Overflow.DISCONNECT, lag_bytes=100)
    fast = Reader(run, overflow=Overflow.DISCONNECT, lag_bytes=100)
    slow.take()
    wakes = slow.wakes
    for number in range(3):
        pool.calls[0].send("x" * 100, number)
        fast.all()
    assert (slow.subscription.cut, fast.subscription.cut) == (True, False)
    assert slow.wakes == wakes + 4  # for each batch, and to hear that it was cut
    assert slow.take() is None
    pool.calls[0].end()
    assert slow.take() is None
    assert fast.all()[-1] is run.ended
    assert pool.calls[0].pauses == 0


def test_disconnect_of_the_last_subscriber_is_its_leaving(start: StartRun, pool: FakePool) -> None:
    """The front door closes what was cut from where it is woken, in the middle of the run's step."""
    run = start()
    reader = Reader(run, overflow=Overflow.DISCONNECT, lag_bytes=100)
    subscription = reader.subscription
    subscription.wake = lambda: subscription.close() if subscription.cut else None
    pool.calls[0].send("x" * 100)
    pool.calls[0].send("y")
    assert run.state == "cancelled"
    assert pool.calls[0].cancelled.is_set()


def test_one_large_batch_is_nobodys_lag(start: StartRun, pool: FakePool) -> None:
    run = start()
    cut, skipped = (Reader(run, overflow=overflow, lag_bytes=100) for overflow in (Overflow.DISCONNECT, Overflow.LATEST))
    pool.calls[0].send(*["x" * 1000] * 10)
    assert not cut.subscription.cut
    assert len(skipped.payloads()) == 10


def test_a_reader_never_lags_by_more_than_half_the_log(start: StartRun, pool: FakePool) -> None:
    run = start(limits=RunLimits(log_bytes=10_000))
    Reader(run, lag_bytes=10**9)
    pool.calls[0].send("x" * 6000)
    assert pool.calls[0].paused


def test_chunks_count_for_the_lag_as_bytes_do(start: StartRun, pool: FakePool) -> None:
    run = start(limits=RunLimits(log_chunks=10))
    Reader(run)
    pool.calls[0].send(*range(6))
    assert pool.calls[0].paused


# limits


def test_take_returns_at_most_the_limit_and_the_worker_waits_for_the_rest(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run, lag_bytes=1000)
    pool.calls[0].send(*range(10))
    assert isinstance(reader.take(), Started)
    taken: list[bytes] = []
    while (event := reader.subscription.take(3)) is not None:
        assert isinstance(event, Chunks)
        assert len(event.payloads) <= 3
        taken += event.payloads
    assert taken == [b"%d" % number for number in range(10)]
    assert reader.subscription.taken_bytes == run.log.total_bytes


def test_small_steps_leave_no_lag_behind(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run, lag_bytes=3000)
    for number in range(500):
        pool.calls[0].send(*(f"{number} {part}" for part in range(7)))
        while reader.subscription.take(1) is not None:
            pass
    assert pool.calls[0].pauses == 0


def test_take_of_nothing_gives_all_but_chunks_and_what_comes_after_them(start: StartRun, pool: FakePool) -> None:
    pool.busy = True
    run = start()
    reader = Reader(run)
    pool.tickets[0].grant()
    pool.calls[0].send(1)
    pool.calls[0].end()
    assert [type(reader.subscription.take(0)) for _ in range(3)] == [Started, Status, type(None)]
    assert isinstance(reader.subscription.take(1), Chunks)
    assert reader.subscription.take(0) is run.ended


# beginning live


def test_live_begins_with_what_comes(start: StartRun, pool: FakePool) -> None:
    run = start()
    Reader(run)
    pool.calls[0].send(1, 2)
    live = Reader(run, live=True)
    started = live.take()
    assert isinstance(started, Started)
    assert started.resumed_from == 3
    assert live.take() is None
    pool.calls[0].send(3)
    assert live.payloads() == [b"3"]


def test_who_comes_pins_no_more_than_the_ring_and_what_others_have_yet_to_take(start: StartRun, pool: FakePool) -> None:
    run = start(limits=RunLimits(log_chunks=16))
    first = Reader(run, lag_bytes=10**6)
    for number in range(40):
        pool.calls[0].send(number)
    assert run.log.next - run.log.first == 40
    first.all()
    Reader(run)
    assert run.log.next - run.log.first == 16
