from __future__ import annotations

from gateway.workers.backoff import LIMIT_S, Backoff


def test_first_restart_is_immediate_then_waits_double_to_the_limit() -> None:
    backoff = Backoff(spread=0)
    assert [round(backoff.next_s(), 3) for _ in range(10)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_reset_begins_again() -> None:
    backoff = Backoff(spread=0)
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0


def test_waits_are_spread_so_that_workers_do_not_restart_together() -> None:
    waits = set()
    for _ in range(20):
        backoff = Backoff()
        waits.add([backoff.next_s() for _ in range(3)][-1])
    assert len(waits) > 1
    assert all(0 < wait <= LIMIT_S * 1.2 for wait in waits)
