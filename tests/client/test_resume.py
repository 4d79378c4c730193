from __future__ import annotations

from gateway.client.resume import NEVER, Attempts, Resume


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(bounds: Resume, clock: Clock | None = None, spread: float = 1.0) -> Attempts:
    return Attempts(bounds, now=clock or Clock(), spread=lambda low, high: low + (high - low) * (spread - 1.0) * 4)


def test_waits_double_from_the_servers_retry_up_to_the_longest() -> None:
    tries = attempts(Resume(attempts=6, limit_s=10.0))
    assert [tries.next_wait_s(retry_ms=2000) for _ in range(7)] == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0, None]


def test_waits_without_a_retry_begin_with_our_own_and_are_spread() -> None:
    assert attempts(Resume(first_s=0.5)).next_wait_s() == 0.5
    assert attempts(Resume(first_s=0.5), spread=1.25).next_wait_s() == 0.625
    assert 0.5 <= (Attempts(Resume(first_s=0.5)).next_wait_s() or 0) <= 0.625


def test_a_retry_after_is_never_undercut() -> None:
    tries = attempts(Resume(first_s=0.5, total_s=30.0))
    assert (tries.next_wait_s(retry_after_s=7.0), tries.next_wait_s(retry_after_s=0.1), tries.next_wait_s(retry_after_s=31.0)) == (
        7.0,
        1.0,
        None,
    )


def test_the_total_is_counted_from_the_cut() -> None:
    clock = Clock()
    tries = attempts(Resume(first_s=1.0, total_s=5.0), clock)
    assert tries.next_wait_s() == 1.0
    clock.now += 4.0
    assert tries.next_wait_s() is None


def test_something_new_makes_the_next_cut_a_first_one() -> None:
    tries = attempts(Resume(attempts=1))
    assert (tries.next_wait_s(), tries.next_wait_s()) == (1.0, None)
    tries.progressed()
    assert tries.next_wait_s() == 1.0


def test_a_silent_connection_that_held_is_a_new_beginning_and_a_short_one_is_not() -> None:
    clock = Clock()
    tries = attempts(Resume(attempts=1, limit_s=15.0), clock)
    tries.next_wait_s()
    tries.connected()
    clock.now += 16.0
    assert tries.next_wait_s() == 1.0
    tries.connected()
    clock.now += 1.0
    assert tries.next_wait_s() is None


def test_never_means_never() -> None:
    assert Attempts(NEVER).next_wait_s(retry_ms=0) is None
