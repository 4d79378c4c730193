"""How often and how patiently a cut stream is resumed; times as values, so that nothing here waits.

The waits begin with the server's `retry:`, double with every attempt that brings nothing, and are random by a quarter, so that
the clients of a restarted gateway don't come back in step. A server's Retry-After is never undercut.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

_SPREAD = 0.25


@dataclass(frozen=True, slots=True)
class Resume:
    """The bounds on coming back after one cut.

    `attempts` in a row that bring nothing new, `total_s` seconds from the cut to the last attempt, `first_s` the first wait where
    the server has named none, `limit_s` the longest wait.
    """

    attempts: int = 10
    total_s: float = 60.0
    first_s: float = 1.0
    limit_s: float = 15.0


PATIENT = Resume()
NEVER = Resume(attempts=0)


class Attempts:
    """The attempts of one stream. `now` and `spread` are for tests."""

    def __init__(
        self, bounds: Resume, *, now: Callable[[], float] = time.monotonic, spread: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.made = 0
        self._bounds = bounds
        self._now = now
        self._spread = spread
        self._since: float | None = None
        self._connected_at = 0.0

    def connected(self) -> None:
        """There is a connection: one that holds for as long as the longest wait is a new beginning, even if nothing comes."""
        self._connected_at = self._now()

    def progressed(self) -> None:
        """Something new has come: the next cut is a first one."""
        self.made = 0
        self._since = None

    def next_wait_s(self, *, retry_ms: int | None = None, retry_after_s: float | None = None) -> float | None:
        """Return how long to wait before the next attempt; None where there is to be none."""
        now, bounds = self._now(), self._bounds
        if self._connected_at and now - self._connected_at > bounds.limit_s:
            self.progressed()
        self._connected_at = 0.0
        if self._since is None:
            self._since = now
        if self.made >= bounds.attempts:
            return None
        first_s = bounds.first_s if retry_ms is None else retry_ms / 1000
        backoff_s = min(first_s * 2.0 ** min(self.made, 16), bounds.limit_s)
        wait_s = max(backoff_s * self._spread(1.0, 1.0 + _SPREAD), retry_after_s or 0.0)
        if now + wait_s - self._since > bounds.total_s:
            return None
        self.made += 1
        return wait_s
