"""A run's chunks in this process's memory: a ring of batches, bounded in bytes and in chunks.

Owned by one run, which appends; read by its subscriptions, each with a cursor of its own. Numbers begin at 1 and
have no holes. What every reader has taken is forgotten (`discard`); a run whose reader is slow stops its worker
long before the ring is full, so eviction (the oldest batch first) hits only what nobody is reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from gateway.events import ChunkAttributes, Chunks, Gap

# What CPython keeps for one small bytes object in a list, besides its text: a million one-byte chunks aren't a megabyte.
CHUNK_OVERHEAD_BYTES = 48


class MemoryLog:
    """A ring of batches. Not thread-safe: everything happens on the event loop.

    `limit_bytes` and `limit_chunks` bound what is kept; one batch larger than that is kept alone.
    """

    __slots__ = ("_batches", "_limit_bytes", "_limit_chunks", "first", "next", "size_bytes", "total_bytes")

    def __init__(self, *, limit_bytes: int, limit_chunks: int) -> None:
        self._batches: deque[Chunks] = deque()
        self._limit_bytes = limit_bytes
        self._limit_chunks = limit_chunks
        # The number of the oldest chunk that is here, and of the one that comes next.
        self.first = 1
        self.next = 1
        # What is kept now, and all that ever came: a reader's lag is total_bytes less what it has taken.
        self.size_bytes = 0
        self.total_bytes = 0

    def append(self, payloads: list[bytes], size_bytes: int, attributes: Mapping[int, ChunkAttributes] | None = None) -> Chunks:
        """Number a batch and keep it; return it. `attributes` is keyed by the index into `payloads`."""
        number = self.next
        size_bytes += CHUNK_OVERHEAD_BYTES * len(payloads)
        numbered = None if attributes is None else {number + index: value for index, value in attributes.items()}
        batch = Chunks(number, payloads, size_bytes, numbered)
        self._batches.append(batch)
        self.next = number + len(payloads)
        self.size_bytes += size_bytes
        self.total_bytes += size_bytes
        while (self.size_bytes > self._limit_bytes or self.next - self.first > self._limit_chunks) and len(self._batches) > 1:
            self._forget_oldest()
        return batch

    def read(self, cursor: int, limit: int | None = None) -> Chunks | Gap | None:
        """Return the batch, or the rest of it, that begins at number `cursor`; a gap where that is gone; None at the end.

        `limit` bounds the chunks; with 0 there are none, so it is None where it isn't a gap.
        """
        if cursor >= self.next:
            return None
        if cursor < self.first:
            return Gap(cursor, self.first - 1, "evicted")
        if limit == 0:
            return None
        for batch in self._batches:
            skip, count = cursor - batch.first, len(batch.payloads)
            if skip == 0 and (limit is None or limit >= count):
                return batch
            if skip < count:
                stop = count if limit is None else min(skip + limit, count)
                # Differences of rounded-down shares, so that the parts add up to the whole.
                size_bytes = batch.size_bytes * stop // count - batch.size_bytes * skip // count
                return Chunks(cursor, batch.payloads[skip:stop], size_bytes, batch.attributes)
        raise AssertionError("a number between first and next stands in a batch")

    def bytes_from(self, cursor: int) -> int:
        """Return what a reader at number `cursor` has before it, as `read` will count it."""
        item = self.read(cursor)
        if item is None or isinstance(item, Gap):
            return 0 if item is None else self.size_bytes
        rest = item.first + len(item.payloads)
        return item.size_bytes + sum(batch.size_bytes for batch in self._batches if batch.first >= rest)

    def discard(self, before: int) -> None:
        """Forget whole batches whose chunks all have numbers below `before`."""
        batches = self._batches
        while batches and batches[0].first + len(batches[0].payloads) <= before:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = self._batches.popleft()
        self.first = oldest.first + len(oldest.payloads)
        self.size_bytes -= oldest.size_bytes
