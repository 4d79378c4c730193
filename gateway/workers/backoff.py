"""How long to wait before the next try to bring a worker up.

The first restart is immediate, since most deaths are single; after that the wait doubles from 0.1 s to 10 s.
"""

from __future__ import annotations

import random

FIRST_S = 0.1
LIMIT_S = 10.0
# Service that lasted this long ends the series of failures.
HEALTHY_S = 30.0


class Backoff:
    """The series of waits for one worker. Not random: `spread=0`."""

    def __init__(self, spread: float = 0.2) -> None:
        self._failures = 0
        self._spread = spread

    def next_s(self) -> float:
        """Return the next wait, and count one failure more."""
        self._failures += 1
        if self._failures == 1:
            return 0.0
        wait_s: float = min(FIRST_S * 2 ** min(self._failures - 2, 16), LIMIT_S)
        return wait_s * random.uniform(1 - self._spread, 1 + self._spread)

    def reset(self) -> None:
        self._failures = 0
