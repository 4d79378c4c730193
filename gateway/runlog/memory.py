"""A run's chunks in this process's memory: a ring of batches, bounded in bytes and in chunks.

Owned by one run, which appends; read by its subscriptions. What was read stays for those who come back, until the ring
is full or the budget of all runs is: then the oldest batch goes first. `places` are the readers who must lose nothing: what they
have yet to take is not evicted, and `is_lagging` tells the run to stop its worker long before the ring is full of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from operator import attrgetter
from typing import final

from gateway.events import ChunkAttributes, Chunks, Gap
from gateway.runlog.budget import MemoryBudget

# What CPython keeps for one small bytes object in a list, besides its text: a million one-byte chunks aren't a megabyte.
CHUNK_OVERHEAD_BYTES = 48
# And for a batch: its tuple, its list, and its place in the ring.
BATCH_OVERHEAD_BYTES = 200

_COMPACT_AT = 64
_first = attrgetter("first")
_GONE = Chunks(0, [], 0)


class Place:
    """Where somebody is who must lose nothing: the chunk it takes next, what stands before it, how far it may lag."""

    __slots__ = ("cursor", "lag_bytes", "taken_bytes")

    def __init__(self, cursor: int, taken_bytes: int, lag_bytes: int) -> None:
        self.cursor = cursor
        self.taken_bytes = taken_bytes
        self.lag_bytes = lag_bytes


@final
class MemoryLog:
    """A ring of batches; a LogWriter and a LogReader. Not thread-safe: everything happens on the event loop.

    `limit_bytes` and `limit_chunks` bound what is kept; one batch larger than that is kept alone, and what `places` have
    yet to take is kept above them. `budget` is shared with the other logs; None: one of its own.
    """

    __slots__ = (
        "_batches",
        "_budget",
        "_ends",
        "_head",
        "_limit_bytes",
        "_limit_chunks",
        "first",
        "next",
        "places",
        "size_bytes",
        "total_bytes",
    )

    def __init__(self, *, limit_bytes: int, limit_chunks: int, budget: MemoryBudget | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._limit_chunks = limit_chunks
        self._budget = budget or MemoryBudget()
        # A list and the index of its oldest batch, not a deque: a reader's place is found by bisection.
        self._batches: list[Chunks] = []
        # The total of all bytes up to the end of each batch.
        self._ends: list[int] = []
        self._head = 0
        self.first = 1
        self.next = 1
        # What is kept now, and all that ever came: a reader's lag is total_bytes less what it has taken.
        self.size_bytes = 0
        self.total_bytes = 0
        self.places: list[Place] = []

    @property
    def lag_limit_bytes(self) -> int:
        """The most that any place may lag: half of the ring, so that the other half is there for what it has on its way."""
        return self._limit_bytes // 2

    def append(self, payloads: list[bytes], size_bytes: int, attributes: Mapping[int, ChunkAttributes] | None = None) -> Chunks:
        """See LogWriter. The oldest batches go where the ring is full."""
        number = self.next
        size_bytes += CHUNK_OVERHEAD_BYTES * len(payloads) + BATCH_OVERHEAD_BYTES
        numbered = None
        if attributes is not None:
            numbered = {number + index: value for index, value in attributes.items()}
            size_bytes += sum(len(value.raw) for value in attributes.values() if value.raw is not None)
        batch = Chunks(number, payloads, size_bytes, numbered)
        budget = self._budget
        if not self.total_bytes:
            budget.opened(self)
        self._batches.append(batch)
        self.next = number + len(payloads)
        self.size_bytes += size_bytes
        self.total_bytes += size_bytes
        self._ends.append(self.total_bytes)
        budget.size_bytes += size_bytes
        if self.size_bytes > self._limit_bytes or self.next - self.first > self._limit_chunks:
            self.trim()
        if budget.size_bytes > budget.threshold_bytes:
            budget.reclaim()
        return batch

    def skip(self, number: int) -> None:
        """Go on with this number: chunks in between will never come, and with what is older they are a gap from now on."""
        self.shrink(self.size_bytes, keep_batches=0)
        self.first = self.next = number

    def read(self, cursor: int, limit: int | None = None) -> Chunks | Gap | None:
        """See LogReader."""
        if cursor < self.first:
            return Gap(cursor, self.first - 1, "evicted")
        if cursor >= self.next or limit == 0:
            return None
        batch = self._batches[-1]
        if cursor < batch.first:
            batch = self._batches[self._index(cursor)]
        skip = cursor - batch.first
        count = len(batch.payloads)
        stop = count if limit is None else min(skip + limit, count)
        if skip == 0 and stop == count:
            return batch
        # Differences of rounded-down shares, so that the parts add up to the whole.
        size_bytes = batch.size_bytes * stop // count - batch.size_bytes * skip // count
        return Chunks(cursor, batch.payloads[skip:stop], size_bytes, batch.attributes)

    def bytes_before(self, cursor: int) -> int:
        """Return all bytes that stand before a cursor, as `read` counts them, those that are gone included."""
        if cursor >= self.next:
            return self.total_bytes
        if cursor <= self.first:
            return self.total_bytes - self.size_bytes
        index = self._index(cursor)
        batch = self._batches[index]
        return self._ends[index] - batch.size_bytes + batch.size_bytes * (cursor - batch.first) // len(batch.payloads)

    def is_lagging(self, parts: int = 1) -> bool:
        """Return whether some place is further behind than it may be, or than that divided by `parts`."""
        total, number, half_chunks = self.total_bytes, self.next, self._limit_chunks // 2 or 1
        for place in self.places:
            if (total - place.taken_bytes) * parts > place.lag_bytes or (number - place.cursor) * parts > half_chunks:
                return True
        return False

    def shrink(self, wanted_bytes: int, keep_batches: int) -> int:
        """Forget the oldest batches until so many bytes are freed or so many batches are left; return what was freed.

        What a place has yet to take stays.
        """
        before, keep_from = self.size_bytes, self._needed_from()
        while before - self.size_bytes < wanted_bytes and len(self._batches) - self._head > keep_batches and self._forget_oldest(keep_from):
            pass
        return before - self.size_bytes

    def trim(self) -> None:
        """Forget what is above the ring's bounds and needed by no place; to be called when a place has gone."""
        while (self.size_bytes > self._limit_bytes or self.next - self.first > self._limit_chunks) and len(self._batches) - self._head > 1:
            if not self._forget_oldest(self._needed_from()):
                return

    def end(self) -> None:
        """Say that nothing more comes: the budget takes from those that have ended first."""
        self._budget.ended(self)

    def close(self) -> None:
        """Forget everything; what was here is a gap to whoever still asks."""
        self.places.clear()
        self._batches.clear()
        self._ends.clear()
        self._head = 0
        self.first = self.next
        freed_bytes, self.size_bytes = self.size_bytes, 0
        self._budget.freed(freed_bytes)
        self._budget.closed(self)

    def _index(self, cursor: int) -> int:
        return bisect_right(self._batches, cursor, self._head, key=_first) - 1

    def _needed_from(self) -> int:
        needed = self.next
        for place in self.places:
            if place.cursor < needed:
                needed = place.cursor
        return needed

    def _forget_oldest(self, keep_from: int) -> bool:
        """Forget the oldest batch; False where a chunk of it is needed."""
        batches, head = self._batches, self._head
        oldest = batches[head]
        end = oldest.first + len(oldest.payloads)
        if end > keep_from:
            return False
        batches[head] = _GONE
        self._head = head = head + 1
        if head == len(batches) or (head >= _COMPACT_AT and head * 2 >= len(batches)):
            del batches[:head], self._ends[:head]
            self._head = 0
        self.first = end
        self.size_bytes -= oldest.size_bytes
        self._budget.freed(oldest.size_bytes)
        return True
