"""Time-outs on the real loop: waited for by events, never by a sleep."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway import timers
from gateway.timers import Timers


async def fired(*delays_s: float) -> list[float]:
    """The delays in the order in which their time-outs fired."""
    clock = Timers(asyncio.get_running_loop())
    order: list[float] = []
    done = asyncio.Event()

    def note(delay_s: float) -> None:
        order.append(delay_s)
        if len(order) == len(delays_s):
            done.set()

    for delay_s in delays_s:
        clock.call_later(delay_s, lambda delay_s=delay_s: note(delay_s))  # type: ignore[misc]
    async with asyncio.timeout(5):
        await done.wait()
    assert len(clock) == 0
    return order


async def test_time_outs_fire_in_the_order_of_their_times() -> None:
    assert await fired(0.03, 0.01, 0.02, 0.0, 0.01) == [0.0, 0.01, 0.01, 0.02, 0.03]


async def test_none_fires_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    clock = Timers(loop)
    times: asyncio.Future[float] = loop.create_future()
    when = loop.time() + 0.02
    clock.call_at(when, lambda: times.set_result(loop.time()))
    assert await times >= when


async def test_a_cancelled_one_never_fires_and_cancelling_again_is_harmless() -> None:
    clock = Timers(asyncio.get_running_loop())
    calls: list[str] = []
    done = asyncio.Event()
    gone = clock.call_later(0.001, lambda: calls.append("gone"))
    clock.call_later(0.002, done.set)
    gone.cancel()
    gone.cancel()
    await done.wait()
    gone.cancel()
    assert calls == []


async def test_one_may_cancel_another_that_is_due_at_the_same_moment() -> None:
    clock = Timers(asyncio.get_running_loop())
    calls: list[str] = []
    done = asyncio.Event()
    when = clock.time() + 0.001
    clock.call_at(when, lambda: second.cancel())
    second = clock.call_at(when, lambda: calls.append("second"))
    clock.call_at(when, done.set)
    await done.wait()
    assert (calls, len(clock)) == ([], 0)


async def test_one_that_raises_does_not_stop_the_others() -> None:
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    clock = Timers(loop)
    done = asyncio.Event()
    when = clock.time() + 0.001
    clock.call_at(when, lambda: [][1])
    clock.call_at(when, done.set)
    async with asyncio.timeout(5):
        await done.wait()
    assert isinstance(told[0]["exception"], IndexError)


async def test_a_callback_may_set_the_next_one() -> None:
    clock = Timers(asyncio.get_running_loop())
    done = asyncio.Event()
    clock.call_later(0.0, lambda: clock.call_later(0.0, done.set))
    async with asyncio.timeout(5):
        await done.wait()


async def test_a_hundred_thousand_cancelled_ones_leave_nothing_behind() -> None:
    clock = Timers(asyncio.get_running_loop())
    kept = [clock.call_later(300, lambda: None) for _ in range(100)]
    for _ in range(100_000):
        clock.call_later(300, lambda: None).cancel()
    assert len(clock) <= 2 * (len(kept) + 256)
    for timer in kept:
        timer.cancel()


async def test_everyone_on_a_loop_shares_its_timers() -> None:
    assert timers.running() is timers.running()
    assert timers.running().loop is asyncio.get_running_loop()
