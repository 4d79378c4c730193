from __future__ import annotations

import pytest

from gateway.call import Affinity, ToolCall
from gateway.errors import Code, GatewayError
from gateway.workers.affinity import Sessions, choose
from gateway.workers.dispatch import Dispatcher, Ticket
from gateway.workers.lease import Lease, LeaseRequest
from gateway.workers.options import PoolOptions
from gateway.workers.worker import Worker
from tests.workers.conftest import FakeChannel, Holder, ManualClock, Sink, ready_worker, starting_worker

ANY = LeaseRequest()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make(clock: ManualClock, *workers: Worker, **options: object) -> Dispatcher:
    dispatcher = Dispatcher(PoolOptions("p", adapter="a:A", **options), clock)  # type: ignore[arg-type]
    dispatcher.workers = list(workers)
    return dispatcher


def leased(answer: Lease | Ticket) -> Lease:
    assert isinstance(answer, Lease)
    return answer


def waiting(answer: Lease | Ticket) -> Ticket:
    assert isinstance(answer, Ticket)
    return answer


def refusal(dispatcher: Dispatcher, request: LeaseRequest = ANY) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        dispatcher.acquire(request, Holder())
    return caught.value


# choose


def test_choose_prefers_least_in_flight_then_longest_rested() -> None:
    one, two, three = (ready_worker(f"p-{n}", concurrency=2) for n in (1, 2, 3))
    one.take(1)
    two.take(2)
    two.give()
    assert choose([one, two, three], None, Affinity.HINT, None) is three
    three.take(3)
    assert choose([one, two, three], None, Affinity.HINT, None) is two


def test_choose_skips_full_and_unready_workers_and_those_without_the_tool() -> None:
    full, draining, other = ready_worker("p-1", "t"), ready_worker("p-2", "t"), ready_worker("p-3", "u")
    full.take(1)
    draining.drain()
    assert choose([full, draining, other, starting_worker("p-4")], "t", Affinity.HINT, None) is None
    assert choose([full, draining, other], "u", Affinity.HINT, None) is other


@pytest.mark.parametrize("affinity", list(Affinity))
def test_choose_takes_the_worker_that_is_named_and_no_other(affinity: Affinity) -> None:
    idle, named = ready_worker("p-1"), ready_worker("p-2")
    assert choose([idle, named], None, affinity, idle, "p-2") is named
    named.take(1)
    assert choose([idle, named], None, affinity, None, "p-2") is None
    assert choose([idle, named], None, affinity, idle, "p-3") is None


@pytest.mark.parametrize("affinity", list(Affinity))
def test_choose_takes_the_sessions_own_worker_while_it_has_a_place(affinity: Affinity) -> None:
    idle, home = ready_worker("p-1", concurrency=2), ready_worker("p-2", concurrency=2)
    home.take(1)
    assert choose([idle, home], None, affinity, home) is home


def test_choose_with_busy_home_differs_by_affinity() -> None:
    idle, home = ready_worker("p-1"), ready_worker("p-2")
    home.take(1)
    assert choose([idle, home], None, Affinity.HINT, home) is idle
    assert choose([idle, home], None, Affinity.STRICT_QUEUE, home) is None
    with pytest.raises(GatewayError) as caught:
        choose([idle, home], None, Affinity.STRICT_FAIL_FAST, home)
    assert caught.value.problem == "worker-busy"


@pytest.mark.parametrize("affinity", [Affinity.STRICT_QUEUE, Affinity.STRICT_FAIL_FAST])
def test_choose_with_home_gone_is_refused_when_strict(affinity: Affinity) -> None:
    idle, home = ready_worker("p-1"), ready_worker("p-2")
    home.end("worker p-2 exited")
    assert choose([idle], None, Affinity.HINT, home) is idle
    with pytest.raises(GatewayError) as caught:
        choose([idle], None, affinity, home)
    assert caught.value.problem == "session-worker-unavailable"


def test_sessions_forget_the_one_unused_for_longest() -> None:
    sessions, worker = Sessions(limit=2), ready_worker()
    for session in ("a", "b", "a", "c"):
        sessions.remember(session, worker)
    assert [sessions.home(session) for session in ("a", "b", "c")] == [worker, None, worker]


# leases


def test_lease_is_returned_when_its_call_has_ended(clock: ManualClock) -> None:
    channel = FakeChannel()
    dispatcher = make(clock, ready_worker(channel=channel))
    sink = Sink()
    lease = leased(dispatcher.acquire(ANY, Holder()))
    assert (lease.pool, lease.worker_id, dispatcher.in_flight) == ("p", "p-1", 1)
    lease.execute(ToolCall("t", {}, 5.0), "r", 5.0, sink)
    lease.release()
    assert dispatcher.in_flight == 1
    channel.calls[0].end()
    assert dispatcher.in_flight == 0
    assert sink.end.error is None


def test_lease_unused_is_released_once(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker())
    lease = leased(dispatcher.acquire(ANY, Holder()))
    lease.release()
    lease.release()
    assert dispatcher.in_flight == 0
    with pytest.raises(RuntimeError):
        lease.execute(ToolCall("t", {}, 5.0), "r", 5.0, Sink())


def test_lease_with_argument_that_is_not_json_is_released(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker())
    with pytest.raises(TypeError):
        leased(dispatcher.acquire(ANY, Holder())).execute(ToolCall("t", {"x": object()}, 5.0), "r", 5.0, Sink())
    assert dispatcher.in_flight == 0


def test_unsettled_run_keeps_its_place_until_freed(clock: ManualClock) -> None:
    channel = FakeChannel()
    worker = ready_worker(channel=channel)
    asked: list[str] = []
    dispatcher = Dispatcher(PoolOptions("p", adapter="a:A"), clock, lambda worker, run_id: asked.append(run_id) is None)
    dispatcher.workers = [worker]
    leased(dispatcher.acquire(ANY, Holder())).execute(ToolCall("t", {}, 5.0), "r7", 5.0, Sink()).cancel()
    channel.calls[0].end(Code.CANCELLED)
    assert asked == ["r7"]
    assert dispatcher.in_flight == 1
    dispatcher.free(worker)
    assert dispatcher.in_flight == 0


# queue


def test_queue_is_served_in_order_of_arrival(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker())
    running = leased(dispatcher.acquire(ANY, Holder()))
    first, second = Holder(), Holder()
    assert waiting(dispatcher.acquire(ANY, first)).position == 1
    ticket = waiting(dispatcher.acquire(ANY, second))
    assert (ticket.position, ticket.depth) == (2, 2)
    running.release()
    assert (len(first.leases), len(second.leases)) == (1, 0)
    first.leases[0].release()
    assert len(second.leases) == 1
    assert dispatcher.queued == 0


def test_queue_full_is_saturated_with_retry_after(clock: ManualClock) -> None:
    dispatcher = make(clock, queue_limit=1)
    waiting(dispatcher.acquire(ANY, Holder()))
    error = refusal(dispatcher)
    assert error.problem == "pool-saturated"
    assert error.retry_after_s == 5.0


def test_queue_time_out_refuses_and_leaves_no_timer(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker(), queue_timeout_s=3.0)
    leased(dispatcher.acquire(ANY, Holder()))
    holder = Holder()
    waiting(dispatcher.acquire(ANY, holder))
    clock.advance(2.9)
    assert holder.refusals == []
    clock.advance(0.2)
    assert [error.problem for error in holder.refusals] == ["queue-timeout"]
    assert (dispatcher.queued, clock.pending) == (0, 0)


def test_queue_time_out_without_any_worker_says_why(clock: ManualClock) -> None:
    worker = starting_worker("p-1")
    worker.end("worker p-1 exited with code 1\nsecret traceback")
    dispatcher = make(clock, worker)
    holder = Holder()
    dispatcher.acquire(ANY, holder)
    clock.advance(10)
    (error,) = holder.refusals
    assert error.problem == "no-workers-available"
    assert "exited with code 1" in error.detail
    assert "secret" not in error.detail


def test_ticket_cancelled_hears_nothing_and_leaves_no_timer(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker())
    running = leased(dispatcher.acquire(ANY, Holder()))
    holder = Holder()
    ticket = waiting(dispatcher.acquire(ANY, holder))
    ticket.cancel()
    ticket.cancel()
    assert clock.pending == 0
    running.release()
    clock.advance(60)
    assert (holder.leases, holder.refusals, dispatcher.in_flight) == ([], [], 0)


def test_ticket_cancelled_after_its_lease_changes_nothing(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker())
    running = leased(dispatcher.acquire(ANY, Holder()))
    holder = Holder()
    ticket = waiting(dispatcher.acquire(ANY, holder))
    running.release()
    ticket.cancel()
    assert dispatcher.in_flight == 1


def test_positions_are_told_once_a_second_and_only_when_changed(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker(), queue_timeout_s=60)
    running = leased(dispatcher.acquire(ANY, Holder()))
    first, second, third = Holder(), Holder(), Holder()
    for holder in (first, second, third):
        dispatcher.acquire(ANY, holder)
    clock.advance(5)
    assert third.positions == []
    running.release()
    assert third.positions == []
    clock.advance(1)
    clock.advance(1)
    assert second.positions == [(1, 2)]
    assert third.positions == [(2, 2)]


def test_strict_waiter_is_overtaken_while_its_worker_is_busy_and_gets_it_then(clock: ManualClock) -> None:
    one, two = ready_worker("p-1"), ready_worker("p-2")
    dispatcher = make(clock, one, two)
    tied = LeaseRequest("s", Affinity.STRICT_QUEUE)
    home = leased(dispatcher.acquire(tied, Holder()))
    other = leased(dispatcher.acquire(ANY, Holder()))
    strict, late = Holder(), Holder()
    waiting(dispatcher.acquire(tied, strict))
    waiting(dispatcher.acquire(ANY, late))
    other.release()
    assert (strict.leases, len(late.leases)) == ([], 1)
    late.leases[0].release()
    overtaking = leased(dispatcher.acquire(ANY, Holder()))
    assert overtaking.worker_id == other.worker_id
    home.release()
    assert [lease.worker_id for lease in strict.leases] == [home.worker_id]


def test_strict_waiter_is_refused_when_its_worker_goes_though_nothing_is_free(clock: ManualClock) -> None:
    worker = ready_worker("p-1")
    dispatcher = make(clock, worker)
    tied = LeaseRequest("s", Affinity.STRICT_QUEUE)
    leased(dispatcher.acquire(tied, Holder()))
    holder = Holder()
    waiting(dispatcher.acquire(tied, holder))
    worker.end("worker p-1 was killed by SIGKILL")
    dispatcher.workers = []
    dispatcher.workers_changed()
    assert [error.problem for error in holder.refusals] == ["session-worker-unavailable"]


def test_pool_affinity_is_the_default_and_a_call_may_change_it(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker("p-1"), ready_worker("p-2"), affinity=Affinity.STRICT_FAIL_FAST)
    first = leased(dispatcher.acquire(LeaseRequest("s"), Holder()))
    assert refusal(dispatcher, LeaseRequest("s")).problem == "worker-busy"
    second = leased(dispatcher.acquire(LeaseRequest("s", Affinity.HINT), Holder()))
    assert second.worker_id != first.worker_id


def test_session_forgotten_goes_anywhere(clock: ManualClock) -> None:
    dispatcher = make(clock, ready_worker("p-1"), ready_worker("p-2"), affinity=Affinity.STRICT_FAIL_FAST)
    leased(dispatcher.acquire(LeaseRequest("s"), Holder()))
    dispatcher.sessions.forget("s")
    leased(dispatcher.acquire(LeaseRequest("s"), Holder()))


def test_holder_that_releases_at_once_lets_the_whole_queue_through(clock: ManualClock) -> None:
    class Hasty(Holder):
        def on_lease(self, lease: Lease) -> None:
            super().on_lease(lease)
            lease.release()

    dispatcher = make(clock, ready_worker())
    running = leased(dispatcher.acquire(ANY, Holder()))
    holders = [Hasty() for _ in range(50)]
    for holder in holders:
        dispatcher.acquire(ANY, holder)
    running.release()
    assert [len(holder.leases) for holder in holders] == [1] * 50
    assert (dispatcher.queued, dispatcher.in_flight, clock.pending) == (0, 0, 0)


def test_holder_that_frees_another_worker_from_within_has_it_given_to_whom_it_passed_by(clock: ManualClock) -> None:
    class Swapper(Holder):
        def on_lease(self, lease: Lease) -> None:
            super().on_lease(lease)
            home.release()

    dispatcher = make(clock, ready_worker("p-1"), ready_worker("p-2"))
    tied = LeaseRequest("s", Affinity.STRICT_QUEUE)
    home = leased(dispatcher.acquire(tied, Holder()))
    other = leased(dispatcher.acquire(ANY, Holder()))
    strict = Holder()
    dispatcher.acquire(tied, strict)
    dispatcher.acquire(ANY, Swapper())
    other.release()
    assert [lease.worker_id for lease in strict.leases] == [home.worker_id]


def test_worker_that_becomes_ready_serves_the_queue(clock: ManualClock) -> None:
    dispatcher = make(clock)
    holders = [Holder() for _ in range(3)]
    for holder in holders:
        dispatcher.acquire(ANY, holder)
    dispatcher.workers = [ready_worker(concurrency=2)]
    dispatcher.workers_changed()
    assert [len(holder.leases) for holder in holders] == [1, 1, 0]


def test_close_refuses_waiters_and_newcomers(clock: ManualClock) -> None:
    dispatcher = make(clock)
    holder = Holder()
    dispatcher.acquire(ANY, holder)
    dispatcher.close(GatewayError("shutting-down", "bye"))
    assert [error.problem for error in holder.refusals] == ["shutting-down"]
    assert refusal(dispatcher).problem == "shutting-down"
    assert clock.pending == 0


def test_holder_that_raises_gives_its_place_to_the_next(clock: ManualClock) -> None:
    worker = ready_worker()
    dispatcher = make(clock, worker)
    first = leased(dispatcher.acquire(ANY, Holder()))

    class Broken(Holder):
        def on_lease(self, lease: Lease) -> None:
            raise RuntimeError("broken")

    second = Holder()
    dispatcher.acquire(ANY, Broken())
    dispatcher.acquire(ANY, second)
    first.release()
    assert len(second.leases) == 1
    assert worker.in_flight == 1
