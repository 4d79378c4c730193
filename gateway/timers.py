"""Many time-outs of which nearly none fires: a heap of them behind one timer of the event loop.

Used by runs/, transport/ and endpoints/, whose every request has three. The loop's own timers cost several times
more (uvloop makes a libuv handle for each). Cancelling only marks: what is cancelled leaves the heap when its time
comes, or when half of the heap is cancelled, so it holds at most twice what is pending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

# Below this, cancelled entries aren't worth a clean-up.
_CLEAN_UP_FROM = 256


class Timer:
    """One time-out. `cancel` is idempotent, and harmless after it fired."""

    __slots__ = ("_timers", "callback")

    def __init__(self, timers: Timers, callback: Callable[[], None]) -> None:
        self._timers = timers
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._timers.cancelled_one()


class Timers:
    """The time-outs of one event loop; see `running`. Times are the loop's, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.time = loop.time
        self.loop_runs = loop.is_running
        # (when, a number that keeps the order of equal times, timer)
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._cancelled = 0
        self._armed: asyncio.TimerHandle | None = None
        self._armed_at = float("inf")

    def __len__(self) -> int:
        """How many entries the heap has, cancelled ones included."""
        return len(self._heap)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` from the loop in `delay_s`."""
        return self.call_at(self.time() + delay_s, callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` from the loop at `when`, never before; one that raises is the loop's exception handler's."""
        timer = Timer(self, callback)
        self._count += 1
        heappush(self._heap, (when, self._count, timer))
        if when < self._armed_at:
            self._arm(when)
        return timer

    def cancelled_one(self) -> None:
        """Count an entry that was cancelled, and clean up when there are too many."""
        self._cancelled += 1
        if self._cancelled > _CLEAN_UP_FROM and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapify(self._heap)
            self._cancelled = 0

    def _arm(self, when: float) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_at = when
        self._armed = self.loop.call_at(when, self._fire)

    def _fire(self) -> None:
        """Call what is due, and wait for what comes next."""
        self._armed, self._armed_at = None, float("inf")
        now = self.time()
        due: list[Timer] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[2])
        for timer in due:
            callback, timer.callback = timer.callback, None
            if callback is None:
                # Before, or just now by one that was due at the same moment.
                self._cancelled -= 1
                continue
            try:
                callback()
            except Exception as exc:
                self.loop.call_exception_handler({"message": "a time-out's callback failed", "exception": exc})
        while self._heap and self._heap[0][2].callback is None:
            heappop(self._heap)
            self._cancelled -= 1
        if self._heap and self._heap[0][0] < self._armed_at:
            self._arm(self._heap[0][0])


class _Latest:
    """The timers that were asked for last; a struct where a global would be looked up by name."""

    def __init__(self) -> None:
        self.timers: Timers | None = None


_latest: Final = _Latest()
_get_ident: Final = threading.get_ident


def running() -> Timers:
    """Return the timers of the running event loop, the same ones for as long as it is the only loop that asks.

    asyncio.get_running_loop makes a system call each time (it guards against forks); a thread has one running loop.
    """
    latest = _latest.timers
    if latest is None or latest.thread != _get_ident() or not latest.loop_runs():
        latest = _latest.timers = Timers(asyncio.get_running_loop())
    return latest
