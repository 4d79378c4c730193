"""What it means when readers leave: cancel, grace, continue; subscribers, observers, and those of other gateways."""

from __future__ import annotations

import pytest

from gateway.events import Chunks, Gap, Started
from gateway.runs.policy import Cause, Overflow, Role, RunLimits
from tests.conftest import FakePool
from tests.runs.conftest import Clock, Reader, StartRun, end_of


def test_continue_runs_on_without_anybody_and_is_never_paused(start: StartRun, pool: FakePool) -> None:
    run = start(on_disconnect="continue", limits=RunLimits(log_chunks=10))
    Reader(run, lag_bytes=100).close()
    for number in range(50):
        pool.calls[0].send(number)
    assert (run.state, pool.calls[0].pauses) == ("running", 0)
    assert Reader(run).all()[1:3] == [Gap(1, 40, "evicted"), run.log.read(41)]
    pool.calls[0].end()
    assert run.state == "ok"


def test_continue_lets_a_worker_go_on_that_waited_for_the_one_who_left(start: StartRun, pool: FakePool) -> None:
    run = start(on_disconnect="continue")
    reader = Reader(run, lag_bytes=100)
    pool.calls[0].send("x" * 200)
    assert pool.calls[0].paused
    reader.close()
    assert not pool.calls[0].paused


@pytest.mark.parametrize("on_disconnect", ["cancel", "grace:1s", "continue"])
def test_a_run_that_nobody_has_read_yet_is_not_left(start: StartRun, pool: FakePool, clock: Clock, on_disconnect: str) -> None:
    run = start(on_disconnect=on_disconnect)
    clock.advance(30)
    assert run.state == "running"


def test_grace_cancels_when_nobody_came_back(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(on_disconnect="grace:30s")
    Reader(run).close()
    clock.advance(29.9)
    assert run.state == "running"
    clock.advance(0.1)
    error = end_of(run).error
    assert (run.state, pool.calls[0].cancelled.is_set()) == ("cancelled", True)
    assert error is not None
    assert "nobody came back in time" in error.detail
    assert clock.pending == []


def test_grace_begins_anew_each_time_the_last_one_leaves(start: StartRun, clock: Clock) -> None:
    run = start(on_disconnect="grace:30s", timeout_s=1000)
    for _ in range(3):
        Reader(run).close()
        clock.advance(20)
        assert run.state == "running"
    back = Reader(run)
    clock.advance(39)
    assert run.state == "running"
    back.close()
    clock.advance(29)
    assert run.state == "running"
    clock.advance(1)
    assert run.state == "cancelled"


def test_grace_holds_in_the_queue_too(start: StartRun, pool: FakePool, clock: Clock) -> None:
    pool.busy = True
    run = start(on_disconnect="grace:5s")
    Reader(run).close()
    clock.advance(4)
    assert not pool.tickets[0].cancelled.is_set()
    clock.advance(1)
    assert (run.state, pool.tickets[0].cancelled.is_set()) == ("cancelled", True)


def test_nothing_is_lost_inside_the_grace(start: StartRun, pool: FakePool) -> None:
    run = start(on_disconnect="grace:30s", limits=RunLimits(log_chunks=100))
    first = Reader(run)
    sent = 0
    call = pool.calls[0]
    for _ in range(60):
        call.send(sent)
        sent += 1
    seen = first.payloads()
    first.close()
    while not call.paused:
        call.send(sent)
        sent += 1
        assert sent < 1000
    # What was on its way when the flow stopped arrives as well.
    for _ in range(60):
        call.send(sent)
        sent += 1
    back = Reader(run, after=len(seen))
    events = back.all()
    assert not any(isinstance(event, Gap) for event in events)
    rest = [payload for event in events if isinstance(event, Chunks) for payload in event.payloads]
    assert seen + rest == [b"%d" % number for number in range(sent)]
    assert not call.paused


def test_the_half_of_the_log_ahead_of_the_place_is_still_there_when_the_worker_waits(start: StartRun, pool: FakePool) -> None:
    """A client has what its connection had delivered, which is less than what was taken for it."""
    run = start(on_disconnect="grace:30s", limits=RunLimits(log_chunks=100))
    reader = Reader(run)
    call = pool.calls[0]
    for number in range(300):
        call.send(number)
        reader.all()
    reader.close()
    while not call.paused:
        call.send("more")
    assert run.log.first <= 301 - 48


def test_an_explicit_cancel_wins_over_every_policy(start: StartRun, pool: FakePool, clock: Clock) -> None:
    for policy in ("grace:30s", "continue"):
        run = start(on_disconnect=policy)
        Reader(run).close()
        run.cancel(Cause.CLIENT)
        assert run.state == "cancelled"
        assert pool.calls[-1].cancelled.is_set()
    assert clock.pending == []


def test_a_grace_that_outlives_the_run_changes_nothing(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(on_disconnect="grace:30s")
    Reader(run).close()
    pool.calls[0].end()
    assert (run.state, clock.pending, run.log.places) == ("ok", [], [])


# observers


def test_an_observer_does_not_keep_the_run_alive(start: StartRun) -> None:
    run = start()
    subscriber, observer = Reader(run), Reader(run, role=Role.OBSERVER)
    subscriber.close()
    assert run.state == "cancelled"
    assert observer.all()[-1] is run.ended


def test_an_observers_leaving_means_nothing(start: StartRun) -> None:
    run = start()
    Reader(run, role=Role.OBSERVER).close()
    assert run.state == "running"


def test_an_observer_does_not_end_the_grace(start: StartRun, clock: Clock) -> None:
    run = start(on_disconnect="grace:5s")
    Reader(run).close()
    Reader(run, role=Role.OBSERVER)
    clock.advance(5)
    assert run.state == "cancelled"


def test_an_observer_does_not_slow_the_worker_and_is_told_what_it_missed(start: StartRun, pool: FakePool) -> None:
    run = start(limits=RunLimits(log_chunks=10))
    subscriber, observer = Reader(run), Reader(run, role=Role.OBSERVER, lag_bytes=100)
    for number in range(50):
        pool.calls[0].send(number)
        subscriber.all()
    assert pool.calls[0].pauses == 0
    events = observer.all()
    assert isinstance(events[0], Started)
    assert events[1] == Gap(1, 40, "evicted")
    assert [payload for event in events[2:] for payload in event.payloads] == [b"%d" % number for number in range(40, 50)]  # type: ignore[union-attr]


def test_an_observer_that_overflows_is_skipped_or_cut_as_anybody(start: StartRun, pool: FakePool) -> None:
    run = start()
    Reader(run)
    skipped = Reader(run, role=Role.OBSERVER, overflow=Overflow.LATEST, lag_bytes=100)
    cut = Reader(run, role=Role.OBSERVER, overflow=Overflow.DISCONNECT, lag_bytes=100)
    pool.calls[0].send("x" * 100)
    pool.calls[0].send("y")
    assert skipped.all()[1:] == [Gap(1, 1, "slow_consumer"), run.log.read(2)]
    assert cut.subscription.cut


# subscribers on other gateways


def test_subscribers_elsewhere_keep_the_run_alive(start: StartRun) -> None:
    run = start()
    reader = Reader(run)
    run.remote_subscribers(2)
    reader.close()
    assert run.state == "running"
    run.remote_subscribers(1)
    assert run.state == "running"
    run.remote_subscribers(0)
    assert run.state == "cancelled"


def test_no_subscribers_elsewhere_is_news_only_when_there_were_some(start: StartRun) -> None:
    run = start()
    run.remote_subscribers(0)
    assert run.state == "running"
    reader = Reader(run)
    run.remote_subscribers(1)
    run.remote_subscribers(0)
    assert run.state == "running"
    reader.close()
    assert run.state == "cancelled"


def test_a_subscriber_elsewhere_ends_the_grace(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(on_disconnect="grace:5s", limits=RunLimits(log_chunks=4))
    Reader(run).close()
    pool.calls[0].send(1, 2, 3)
    assert pool.calls[0].paused
    run.remote_subscribers(1)
    assert not pool.calls[0].paused
    clock.advance(30)
    assert run.state == "running"
    run.remote_subscribers(0)
    clock.advance(5)
    assert run.state == "cancelled"


@pytest.mark.parametrize(("on_disconnect", "kept"), [("cancel", 1), ("grace:30s", 9), ("continue", 9)])
def test_a_run_that_nobody_will_come_back_to_keeps_less(start: StartRun, pool: FakePool, on_disconnect: str, kept: int) -> None:
    run = start(on_disconnect=on_disconnect, limits=RunLimits(log_bytes=10_000, plain_log_bytes=2_000))
    for _ in range(20):
        pool.calls[0].send("x" * 800)
    assert run.log.next - run.log.first == kept
