"""A reader whose caller's time is over: it ends at that moment, alone, whatever it has yet to read."""

from __future__ import annotations

import time

import pytest

from gateway.caller import ANONYMOUS, Caller
from gateway.events import Chunks, Ended, Outcome, Started, Status
from gateway.runs.run import Run
from gateway.runs.subscription import Subscription
from tests.conftest import FakePool, within
from tests.runs.conftest import Clock, StartRun


@pytest.fixture
def brief(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """A caller with 10 s left."""
    monkeypatch.setattr("gateway.runs.subscription.timers.running", lambda: clock)
    return Caller("jwt:ada", expires_at=time.time() + 10)


def reader_of(run: Run, caller: Caller) -> tuple[Subscription, list[int]]:
    wakes: list[int] = []
    return run.subscribe(lambda: wakes.append(1), caller), wakes


async def test_it_ends_there_and_takes_nothing_after_that(start: StartRun, pool: FakePool, clock: Clock, brief: Caller) -> None:
    run = start(on_disconnect="continue")
    reader, wakes = reader_of(run, brief)
    assert isinstance(reader.take(), Started)
    (await within(pool.next_call())).send(1, 2)
    clock.advance(5)
    assert not reader.expired
    woken = len(wakes)
    clock.advance(5)
    assert (reader.expired, len(wakes)) == (True, woken + 1)
    # A status that comes meanwhile is not what it is told.
    reader.note(Status("running"))
    end = reader.take()
    assert isinstance(end, Ended)
    assert (end.outcome, end.chunks, end.error and end.error.problem) == (Outcome.AUTH_EXPIRED, 2, "auth-expired")
    assert (reader.take(), reader.finished, run.ended, run.readers) == (None, True, None, ())


async def test_the_last_subscribers_end_is_its_leaving(start: StartRun, clock: Clock, brief: Caller) -> None:
    run = start()
    reader, _ = reader_of(run, brief)
    reader.take()
    clock.advance(11)
    assert run.ended is None
    reader.take()
    assert run.ended is not None
    assert (run.ended.outcome, reader.take()) == (Outcome.CANCELLED, None)


async def test_others_read_on(start: StartRun, pool: FakePool, clock: Clock, brief: Caller) -> None:
    run = start()
    reader, _ = reader_of(run, brief)
    other, _ = reader_of(run, ANONYMOUS)
    for each in (reader, other):
        each.take()
    clock.advance(11)
    assert isinstance(reader.take(), Ended)
    (await within(pool.next_call())).send(1)
    assert isinstance(other.take(), Chunks)


async def test_whose_time_is_over_already_is_told_at_once(start: StartRun, clock: Clock, brief: Caller) -> None:
    reader, _ = reader_of(start(), Caller("jwt:ada", expires_at=time.time() - 5))
    assert isinstance(reader.take(), Started)
    clock.advance(0)
    assert isinstance(reader.take(), Ended)


async def test_who_leaves_in_time_is_not_woken_any_more(start: StartRun, clock: Clock, brief: Caller) -> None:
    reader, wakes = reader_of(start(on_disconnect="continue"), brief)
    reader.close()
    clock.advance(11)
    assert (reader.expired, wakes) == (False, [])
