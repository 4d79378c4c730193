from __future__ import annotations

import asyncio

import pytest

from gateway.call import Affinity, ToolCall
from gateway.errors import Code, GatewayError, ToolFailed
from gateway.events import ChunkAttributes, Chunks, Ended, Gap, Outcome, Started, Status
from gateway.runs.policy import Cause, RunLimits, RunPolicy
from gateway.runs.run import Run
from tests.conftest import FakePool
from tests.runs.conftest import RUN_ID, Clock, Owner, Reader, StartRun, end_of


def test_start_with_a_free_worker_runs_at_once(start: StartRun, pool: FakePool) -> None:
    run = start()
    assert (run.state, run.worker_id) == ("running", "w-1")
    assert pool.calls[0].call is run.call
    assert pool.calls[0].run_id == RUN_ID


def test_start_asks_the_pool_for_session_affinity_and_tool(clock: Clock, pool: FakePool, owner: Owner) -> None:
    call = ToolCall("count", {}, 60.0, session_id="s", affinity=Affinity.STRICT_QUEUE)
    Run(RUN_ID, call, RunPolicy(), RunLimits(), owner).start(pool)  # type: ignore[arg-type]
    (request,) = pool.requests
    assert (request.session_id, request.affinity, request.tool) == ("s", Affinity.STRICT_QUEUE, "count")


def test_start_that_the_pool_refuses_leaves_no_timer_and_no_end(start: StartRun, pool: FakePool, owner: Owner, clock: Clock) -> None:
    pool.refusal = GatewayError("pool-saturated", "full")
    with pytest.raises(GatewayError, match="full"):
        start()
    assert (clock.pending, owner.ended) == ([], [])


def test_first_event_says_the_policy_and_the_links(start: StartRun) -> None:
    started = Reader(start(timeout_s=1.5, limits=RunLimits(heartbeat_s=2.0))).take()
    assert started == Started(
        RUN_ID,
        "count",
        {
            "on_disconnect": "cancel",
            "timeout_ms": 1500,
            "heartbeat_ms": 2000,
            "links": {"events": f"/v1/runs/{RUN_ID}/events", "cancel": f"/v1/runs/{RUN_ID}/cancel"},
        },
    )


def test_chunks_are_numbered_and_wake_the_reader(start: StartRun, pool: FakePool) -> None:
    reader = Reader(start())
    reader.take()
    pool.calls[0].send(1, 2)
    pool.calls[0].send(3)
    assert reader.wakes == 2
    batches = [event for event in reader.all() if isinstance(event, Chunks)]
    assert [(batch.first, batch.payloads) for batch in batches] == [(1, [b"1", b"2"]), (3, [b"3"])]
    assert reader.take() is None


def test_end_is_the_last_event_exactly_once(start: StartRun, pool: FakePool, owner: Owner) -> None:
    run = start()
    reader = Reader(run)
    pool.calls[0].send(1)
    pool.calls[0].end({"k": "v"})
    events = reader.all()
    assert [type(event) for event in events] == [Started, Chunks, Ended]
    assert events[-1] is run.ended
    assert reader.subscription.finished
    assert reader.take() is None
    assert owner.ended == [run]


# the endings


def test_a_tools_own_end_is_ok_and_decorated(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start()
    clock.advance(0.25)
    pool.calls[0].send(1)
    clock.advance(1.0)
    pool.calls[0].end({"mine": "1"})
    end = end_of(run)
    assert (end.outcome, end.chunks, end.error) == (Outcome.OK, 1, None)
    assert end.metadata == {"execution_time_ms": "1250", "tool_type": "remote", "worker_id": "w-1", "mine": "1"}
    assert end.timing is not None
    assert (end.timing.queue_ms, end.timing.first_chunk_ms, end.timing.total_ms) == (0, 250, 1250)


def test_what_the_worker_says_itself_is_not_overwritten(start: StartRun, pool: FakePool) -> None:
    run = start()
    pool.calls[0].end({"worker_id": "theirs", "execution_time_ms": "7"})
    assert end_of(run).metadata == {"worker_id": "theirs", "execution_time_ms": "7", "tool_type": "remote"}


def test_an_end_without_a_final_chunk_is_marked_synthetic(start: StartRun, pool: FakePool) -> None:
    run = start()
    pool.calls[0].end(has_final=False)
    assert end_of(run).metadata["synthetic_final"] == "true"


def test_a_failed_call_ends_as_error_after_its_chunks(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run)
    pool.calls[0].send(1)
    pool.calls[0].fail(ToolFailed(Code.NOT_FOUND, "no file"))
    assert [type(event) for event in reader.all()] == [Started, Chunks, Ended]
    end = end_of(run)
    assert (end.outcome, end.error and end.error.code) == (Outcome.ERROR, Code.NOT_FOUND)


def test_a_worker_that_times_out_ends_as_deadline(start: StartRun, pool: FakePool) -> None:
    run = start()
    pool.calls[0].fail(GatewayError("worker-timeout", "late"))
    assert end_of(run).outcome is Outcome.DEADLINE


async def test_a_call_that_ends_cancelled_by_itself_is_cancelled(start: StartRun, pool: FakePool) -> None:
    run = start()
    pool.calls[0].cancel()
    await asyncio.sleep(0)
    assert run.state == "cancelled"


@pytest.mark.parametrize(
    ("cause", "outcome", "problem"), [(Cause.CLIENT, "cancelled", "cancelled"), (Cause.SHUTDOWN, "shutdown", "shutting-down")]
)
async def test_cancel_while_running_cancels_the_call_once(
    start: StartRun, pool: FakePool, owner: Owner, clock: Clock, cause: Cause, outcome: str, problem: str
) -> None:
    run = start()
    reader = Reader(run)
    run.cancel(cause)
    run.cancel(cause)
    assert pool.calls[0].cancelled.is_set()
    await asyncio.sleep(0)  # the call's own end arrives, and changes nothing
    error = end_of(run).error
    assert (run.state, error and error.problem) == (outcome, problem)
    assert (owner.ended, clock.pending) == ([run], [])
    assert [type(event) for event in reader.all()] == [Started, Ended]


def test_cancel_after_the_end_changes_nothing(start: StartRun, pool: FakePool, owner: Owner) -> None:
    run = start()
    pool.calls[0].end()
    run.cancel(Cause.CLIENT)
    assert (run.state, owner.ended) == ("ok", [run])


def test_chunks_after_a_cancel_are_dropped(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run)
    run.cancel(Cause.CLIENT)
    run.on_chunks([b"1"], 1, None)
    assert [type(event) for event in reader.all()] == [Started, Ended]
    assert end_of(run).chunks == 0


def test_the_last_readers_leaving_cancels(start: StartRun, pool: FakePool) -> None:
    run = start()
    first, second = Reader(run), Reader(run)
    first.close()
    first.close()
    assert run.state == "running"
    second.close()
    assert run.state == "cancelled"
    assert pool.calls[0].cancelled.is_set()
    error = end_of(run).error
    assert error is not None
    assert "last reader left" in error.detail


def test_leaving_after_the_end_is_no_disconnect(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run)
    pool.calls[0].end()
    reader.close()
    assert run.state == "ok"


def test_an_argument_without_a_json_form_ends_the_run(start: StartRun, pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TypeError("bytes")

    monkeypatch.setattr("tests.conftest.FakeLease.execute", refuse)
    run = start()
    error = end_of(run).error
    assert error is not None
    assert error.problem == "invalid-arguments"


# queued


def test_queued_run_tells_its_place_and_then_its_worker(start: StartRun, pool: FakePool) -> None:
    pool.busy = True
    run = start()
    reader = Reader(run)
    assert run.state == "queued"
    assert isinstance(reader.take(), Started)
    assert reader.take() == Status("queued", {"position": 1, "depth": 1, "pool": "default"})
    run.on_position(1, 7)
    assert reader.take() == Status("queued", {"position": 1, "depth": 7, "pool": "default"})
    pool.tickets[0].grant()
    assert run.state == "running"
    assert reader.take() == Status("running", {"worker": "w-1", "pool": "default", "attempt": 1})


def test_a_status_that_was_not_taken_is_replaced_by_the_next(start: StartRun, pool: FakePool) -> None:
    pool.busy = True
    run = start()
    reader = Reader(run)
    for position in (9, 8, 7):
        run.on_position(position, 9)
    statuses = [event for event in reader.all() if isinstance(event, Status)]
    assert statuses == [Status("queued", {"position": 7, "depth": 9, "pool": "default"})]


def test_queue_time_is_part_of_the_budget(start: StartRun, pool: FakePool, clock: Clock) -> None:
    pool.busy = True
    run = start(timeout_s=10.0)
    clock.advance(4.0)
    pool.tickets[0].grant()
    assert pool.calls[0].timeout_s == pytest.approx(6.0)
    pool.calls[0].end()
    timing = end_of(run).timing
    assert timing is not None
    assert timing.queue_ms == 4000


def test_refused_in_the_queue_ends_as_error(start: StartRun, pool: FakePool, owner: Owner) -> None:
    pool.busy = True
    run = start()
    pool.tickets[0].refuse(GatewayError("queue-timeout", "10 s"))
    error = end_of(run).error
    assert (run.state, error and error.problem, owner.ended) == ("error", "queue-timeout", [run])
    assert not pool.tickets[0].cancelled.is_set()
    assert end_of(run).metadata == {}


def test_cancel_in_the_queue_gives_the_place_back(start: StartRun, pool: FakePool) -> None:
    pool.busy = True
    run = start()
    run.cancel(Cause.CLIENT)
    assert (run.state, pool.tickets[0].cancelled.is_set(), pool.calls) == ("cancelled", True, [])


def test_leaving_in_the_queue_gives_the_place_back(start: StartRun, pool: FakePool) -> None:
    pool.busy = True
    run = start()
    Reader(run).close()
    assert (run.state, pool.tickets[0].cancelled.is_set()) == ("cancelled", True)


def test_deadline_in_the_queue_says_what_it_waited_for(start: StartRun, pool: FakePool, clock: Clock) -> None:
    pool.busy = True
    run = start(timeout_s=5.0)
    clock.advance(4.99)
    assert run.state == "queued"
    clock.advance(0.01)
    error = end_of(run).error
    assert (run.state, pool.tickets[0].cancelled.is_set()) == ("deadline", True)
    assert error is not None
    assert "waiting for a worker" in error.detail


# deadlines


def test_total_deadline_ends_a_run_that_delivers_chunks(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(timeout_s=5.0)
    for _ in range(4):
        clock.advance(1.0)
        pool.calls[0].send(1)
    assert run.state == "running"
    clock.advance(1.0)
    assert (run.state, pool.calls[0].cancelled.is_set(), clock.pending) == ("deadline", True, [])


def test_idle_deadline_counts_from_the_lease_then_from_each_chunk(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(idle_s=2.0)
    clock.advance(1.9)
    pool.calls[0].send(1)
    clock.advance(1.9)
    pool.calls[0].send(2)
    clock.advance(1.9)
    assert run.state == "running"
    clock.advance(0.1)
    error = end_of(run).error
    assert run.state == "deadline"
    assert error is not None
    assert "idle" in error.detail


def test_idle_deadline_does_not_run_in_the_queue(start: StartRun, pool: FakePool, clock: Clock) -> None:
    pool.busy = True
    run = start(idle_s=1.0)
    clock.advance(30.0)
    assert run.state == "queued"
    pool.tickets[0].grant()
    clock.advance(0.9)
    assert run.state == "running"
    clock.advance(0.1)
    assert run.state == "deadline"


def test_idle_deadline_stands_still_while_a_slow_reader_pauses_the_worker(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(idle_s=2.0)
    reader = Reader(run, lag_bytes=100)
    pool.calls[0].send("x" * 200)
    assert pool.calls[0].paused
    clock.advance(31.0)  # between two looks at the deadline
    assert run.state == "running"
    reader.all()
    assert not pool.calls[0].paused
    clock.advance(1.9)
    assert run.state == "running"
    clock.advance(0.1)
    assert run.state == "deadline"


def test_queue_deadline_ends_who_waits_for_a_worker_and_not_who_has_one(start: StartRun, pool: FakePool, clock: Clock) -> None:
    pool.busy = True
    waits, served = start(queue_s=5.0), start(queue_s=5.0)
    pool.tickets[1].grant()
    clock.advance(5.0)
    error = end_of(waits).error
    assert (waits.state, served.state, pool.tickets[0].cancelled.is_set()) == ("deadline", "running", True)
    assert error is not None
    assert (error.problem, error.retry_after_s, error.extra) == ("queue-timeout", 1, {"deadline": "queue"})
    assert "no worker became free in 5 s" in error.detail


def test_first_chunk_deadline_counts_from_the_worker_and_ends_with_the_first_chunk(start: StartRun, pool: FakePool, clock: Clock) -> None:
    pool.busy = True
    silent, speaks = start(first_chunk_s=2.0), start(first_chunk_s=2.0)
    clock.advance(10)
    for ticket in pool.tickets:
        ticket.grant()
    clock.advance(1.9)
    pool.calls[1].send(1)
    clock.advance(0.1)
    error = end_of(silent).error
    assert error is not None
    assert (silent.state, speaks.state) == ("deadline", "running")
    assert (error.problem, error.extra) == ("worker-timeout", {"deadline": "first_chunk"})
    clock.advance(30)
    assert speaks.state == "running"


def test_a_first_chunk_deadline_stands_in_for_the_idle_one_until_there_is_a_chunk(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(first_chunk_s=10.0, idle_s=1.0)
    clock.advance(9.9)
    pool.calls[0].send(1)
    clock.advance(0.9)
    assert run.state == "running"
    clock.advance(0.1)
    error = end_of(run).error
    assert error is not None
    assert error.extra == {"deadline": "idle"}


def test_the_whole_budget_goes_before_a_longer_deadline(start: StartRun, pool: FakePool, clock: Clock) -> None:
    pool.busy = True
    run = start(timeout_s=3.0, queue_s=5.0, first_chunk_s=5.0)
    clock.advance(3.0)
    error = end_of(run).error
    assert error is not None
    assert (run.state, error.extra) == ("deadline", {"deadline": "total"})


def test_total_deadline_holds_while_paused(start: StartRun, pool: FakePool, clock: Clock) -> None:
    run = start(timeout_s=5.0, idle_s=2.0)
    Reader(run, lag_bytes=100)
    pool.calls[0].send("x" * 200)
    clock.advance(5.0)
    assert run.state == "deadline"


# readers


def test_the_slowest_reader_decides_when_the_worker_waits(start: StartRun, pool: FakePool) -> None:
    run = start()
    fast, slow = Reader(run, lag_bytes=900), Reader(run, lag_bytes=900)
    call = pool.calls[0]
    for _ in range(3):
        call.send("x" * 100)
        fast.all()
    assert call.paused
    slow.take()  # start
    slow.take()
    assert call.paused
    slow.all()
    assert not call.paused
    assert call.pauses == 1


def test_a_slow_reader_that_leaves_lets_the_worker_go_on(start: StartRun, pool: FakePool) -> None:
    run = start()
    fast, slow = Reader(run, lag_bytes=100), Reader(run, lag_bytes=100)
    pool.calls[0].send("x" * 200)
    fast.all()
    assert pool.calls[0].paused
    slow.close()
    assert not pool.calls[0].paused


def test_what_was_read_stays_for_those_who_come_later(start: StartRun, pool: FakePool) -> None:
    run = start()
    first = Reader(run)
    pool.calls[0].send(1, 2)
    first.all()
    late = Reader(run)
    pool.calls[0].send(3)
    assert [type(event) for event in late.all()] == [Started, Chunks, Chunks]
    assert Reader(run).payloads() == [b"1", b"2", b"3"]


def test_each_reader_gets_everything_in_order(start: StartRun, pool: FakePool) -> None:
    run = start()
    early, lazy = Reader(run), Reader(run)
    seen: list[bytes] = []
    for number in range(50):
        pool.calls[0].send(number, number + 0.5)
        seen += early.payloads()
    expected = [payload for number in range(50) for payload in (b"%d" % number, b"%d.5" % number)]
    assert seen == expected
    assert lazy.payloads() == expected


def test_a_reader_that_joins_late_sees_a_gap_for_what_is_gone(start: StartRun, pool: FakePool) -> None:
    run = start(limits=RunLimits(log_chunks=2))
    first = Reader(run)
    for number in range(1, 5):
        pool.calls[0].send(number)
        first.all()
    late = Reader(run)
    assert late.all()[1:] == [Gap(1, 2, "evicted"), *(run.log.read(number) for number in (3, 4))]


@pytest.mark.parametrize(("after", "start_at", "rest"), [(0, 1, [b"1", b"2", b"3"]), (2, 3, [b"3"]), (3, 4, []), (99, 4, [])])
def test_a_reader_that_resumes_gets_what_comes_after(start: StartRun, pool: FakePool, after: int, start_at: int, rest: list[bytes]) -> None:
    run = start()
    Reader(run)
    pool.calls[0].send(1, 2, 3)
    back = Reader(run, after=after)
    started = back.take()
    assert isinstance(started, Started)
    assert started.resumed_from == start_at
    assert back.payloads() == rest


def test_a_reader_that_resumes_in_the_middle_is_not_taken_for_a_slow_one(start: StartRun, pool: FakePool) -> None:
    run = start()
    first = Reader(run, lag_bytes=1000)
    for _ in range(20):
        pool.calls[0].send("x" * 200, "y" * 200)
        first.all()
    second = Reader(run, lag_bytes=1000, after=40)
    for _ in range(20):
        pool.calls[0].send("z")
        first.all()
        second.all()
        assert not pool.calls[0].paused


def test_a_reader_after_the_end_still_hears_the_end(start: StartRun, pool: FakePool) -> None:
    run = start()
    Reader(run)
    pool.calls[0].send(1)
    pool.calls[0].end()
    assert [type(event) for event in Reader(run, after=0).all()] == [Started, Chunks, Ended]


def test_attributes_reach_the_reader(start: StartRun, pool: FakePool) -> None:
    run = start()
    reader = Reader(run)
    final = ChunkAttributes(is_final=True, metadata={"k": "v"})
    pool.calls[0].send(1)
    pool.calls[0].send_raw(b"2", attributes={0: final})
    batches = [event for event in reader.all() if isinstance(event, Chunks)]
    assert batches[1].attributes == {2: final}


def test_repr_says_the_state(start: StartRun, pool: FakePool) -> None:
    run = start()
    Reader(run)
    pool.calls[0].send(1)
    assert repr(run) == f"<Run {RUN_ID} count: running, 1 chunks, 1 readers>"
