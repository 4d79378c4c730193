"""One connection's time-outs, of which the nearest may change with every byte, behind a single timer.

Used by guard.py. The timer is only ever moved to be earlier. When it fires it asks what is due, and waits for that: a
connection that is busy moves no timer for its requests.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from gateway import timers


class Patience:
    """`look(now)` does what is due and returns when to look again; None: nothing is being waited for. Times are the loop's, in seconds."""

    __slots__ = ("_at", "_look", "_timer", "_timers", "time")

    def __init__(self, look: Callable[[float], float | None]) -> None:
        self._look = look
        self._timers = timers.running()
        self._timer: timers.Timer | None = None
        self._at = inf
        self.time = self._timers.time

    def by(self, when: float) -> None:
        """Have a look at `when`, at the latest."""
        if when < self._at:
            self.stop()
            self._at = when
            self._timer = self._timers.call_at(when, self._fire)

    def stop(self) -> None:
        """Have no look any more; idempotent."""
        self._at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Stop for good. Who looks is let go of: it and this refer to each other."""
        self.stop()
        self._look = _nothing

    def _fire(self) -> None:
        self._at = inf
        self._timer = None
        when = self._look(self.time())
        if when is not None:
            self.by(when)


def _nothing(now: float) -> float | None:
    """Look at nothing, and not again."""
    return None
