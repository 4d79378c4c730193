"""The memory that all runs' logs may take together. One for a gateway, shared by its logs.

When it is exceeded, the chunks of the runs that ended first go first, then the oldest batches of the largest live
logs. What a reader that must lose nothing has yet to take stays (`MemoryLog.places`): its lag bounds that, so the budget is
exceeded by no more than what flow control lets slow readers leave lying. Events are bounded with it, since each weighs
at least CHUNK_OVERHEAD_BYTES.
"""

from __future__ import annotations

import heapq
from typing import Protocol

# What is freed at once, so that the search for it is not made for every batch: this part of the limit.
STEP_PARTS = 64
# The part of the largest log that goes before the next one is looked at.
SHARE = 8


class BudgetedLog(Protocol):
    """A log as its budget sees it."""

    size_bytes: int

    def shrink(self, wanted_bytes: int, keep_batches: int) -> int:
        """Forget the oldest batches until so many bytes are freed or so many batches are left; return what was freed."""


class MemoryBudget:
    """The bytes that logs hold now (`size_bytes`, counted by the logs themselves), and their bound."""

    def __init__(self, limit_bytes: int = 256 * 1024 * 1024) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        # What `reclaim` has freed in all.
        self.reclaimed_bytes = 0
        # Above this `reclaim` is due: the limit, or more where the last reclaim found too little to free.
        self.threshold_bytes = limit_bytes
        self._live: dict[BudgetedLog, None] = {}
        # In the order in which they ended.
        self._ended: dict[BudgetedLog, None] = {}

    def opened(self, log: BudgetedLog) -> None:
        """A log has its first batch."""
        self._live[log] = None

    def ended(self, log: BudgetedLog) -> None:
        """Nothing more comes into a log."""
        if log in self._live:
            del self._live[log]
            self._ended[log] = None

    def closed(self, log: BudgetedLog) -> None:
        """A log is gone."""
        self._live.pop(log, None)
        self._ended.pop(log, None)

    def change(self, limit_bytes: int) -> None:
        """Have another limit from now on, and free what is above it."""
        self.limit_bytes = self.threshold_bytes = limit_bytes
        if self.size_bytes > limit_bytes:
            self.reclaim()

    def freed(self, size_bytes: int) -> None:
        """A log holds so much less; a threshold that had been raised follows."""
        self.size_bytes -= size_bytes
        if self.threshold_bytes > self.limit_bytes:
            self._lower()

    def _lower(self) -> None:
        step = max(self.limit_bytes // STEP_PARTS, 1)
        self.threshold_bytes = max(self.limit_bytes, min(self.threshold_bytes, self.size_bytes + step))

    def reclaim(self) -> None:
        """Free what is above the limit and one step more; called by a log above the threshold."""
        step = max(self.limit_bytes // STEP_PARTS, 1)
        target = self.limit_bytes - step
        before_bytes = self.size_bytes
        self._shrink_ended(target)
        self._shrink_live(target)
        self.reclaimed_bytes += before_bytes - self.size_bytes
        self.threshold_bytes = max(self.limit_bytes, self.size_bytes + step) if self.size_bytes > target else self.limit_bytes

    def _shrink_ended(self, target: int) -> None:
        emptied = []
        for log in self._ended:
            if self.size_bytes <= target:
                break
            log.shrink(self.size_bytes - target, keep_batches=0)
            if log.size_bytes == 0:
                emptied.append(log)
        for log in emptied:
            del self._ended[log]

    def _shrink_live(self, target: int) -> None:
        if self.size_bytes <= target:
            return
        # The index makes entries of the same size comparable.
        heap = [(-log.size_bytes, index, log) for index, log in enumerate(self._live)]
        heapq.heapify(heap)
        while heap and self.size_bytes > target:
            _, index, log = heapq.heappop(heap)
            wanted = min(log.size_bytes // SHARE + 1, self.size_bytes - target)
            if log.shrink(wanted, keep_batches=1):
                heapq.heappush(heap, (-log.size_bytes, index, log))
