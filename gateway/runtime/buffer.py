"""The bounded hand-over of encoded chunks from a tool (its thread, or a task) to the call that writes them.

Made by execution.py, read by servicer.py. One producer, one reader; the reader lives on the event loop, the
producer on a thread or on the loop. The reader takes all that is there at once, and the loop is woken only when
the reader waits: a tool that yields quickly costs neither a lock nor a task switch for each chunk.

When full (limits.BUFFER_LIMIT_CHUNKS or _BYTES; one chunk always fits) the producer waits. Closing wakes it:
from then on `put` and `aput` say False, and nothing is kept.

Why no lock: appending to and popping from a deque are atomic, each count has one writer, and each side announces
that it waits *before* it looks a last time, so that one of the two always sees the other. Swapping a list for an
empty one instead loses what is appended meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque

from gateway.runtime.chunk import Encoded
from gateway.runtime.limits import BATCH_LIMIT_BYTES, BATCH_LIMIT_CHUNKS, BUFFER_LIMIT_BYTES, BUFFER_LIMIT_CHUNKS


class ChunkBuffer:
    """A queue of encoded chunks, bounded by their number and their bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._chunks: deque[Encoded] = deque()
        # Written by the producer and by the reader only, respectively; the difference is what is queued.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._finished = False
        self._closed = False
        # Futures of the loop; each is set while its side waits there.
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        # The producer's thread waits, or is about to.
        self._blocked = False
        self._room = threading.Condition()

    def __len__(self) -> int:
        """How many chunks are queued."""
        return len(self._chunks)

    @property
    def size_bytes(self) -> int:
        """What is queued, in bytes of payload."""
        return self._put_bytes - self._taken_bytes

    def put(self, chunk: Encoded) -> bool:
        """Append a chunk from the tool's thread, waiting for room. False: nobody reads any more, so stop."""
        # The same as _is_full and _append, written out: this is called for every chunk.
        chunks = self._chunks
        size_bytes = len(chunk)
        if len(chunks) >= BUFFER_LIMIT_CHUNKS or self._put_bytes - self._taken_bytes + size_bytes > BUFFER_LIMIT_BYTES:
            self._wait_for_room(chunk)
        if self._closed:
            return False
        self._put_bytes += size_bytes
        chunks.append(chunk)
        if self._reader is not None:
            self._wake_reader()
        return True

    def _wait_for_room(self, chunk: Encoded) -> None:
        with self._room:
            self._blocked = True
            while self._is_full(chunk):
                self._room.wait()
            self._blocked = False

    async def aput(self, chunk: Encoded) -> bool:
        """Append a chunk from a task on the loop, waiting for room. False: nobody reads any more, so stop."""
        while self._is_full(chunk):
            self._writer = self._loop.create_future()
            await self._writer
        return self._append(chunk)

    def _is_full(self, chunk: Encoded) -> bool:
        queued = len(self._chunks)
        if not queued or self._closed:
            return False
        return queued >= BUFFER_LIMIT_CHUNKS or self._put_bytes - self._taken_bytes + len(chunk) > BUFFER_LIMIT_BYTES

    def _append(self, chunk: Encoded) -> bool:
        if self._closed:
            return False
        # In this order: the reader subtracts what it takes.
        self._put_bytes += len(chunk)
        self._chunks.append(chunk)
        if self._reader is not None:
            self._wake_reader()
        return True

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            # The loop is closed only when the process ends under a tool that would not stop.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, reader)

    async def take(self) -> list[Encoded]:
        """Return what is queued, in order, as much as one message carries; wait while there is nothing.

        An empty list means the end: the producer has finished and everything was taken, or the buffer is closed.
        """
        while not self._chunks:
            if self._finished or self._closed:
                return []
            waiter = self._reader = self._loop.create_future()
            if self._chunks:
                self._reader = None
                break
            await waiter
        batch = self._cut()
        self._make_room()
        return batch

    def _cut(self) -> list[Encoded]:
        """Take a message's worth off the queue."""
        chunks = self._chunks
        pop = chunks.popleft
        queued = len(chunks)
        if self._put_bytes - self._taken_bytes <= BATCH_LIMIT_BYTES:
            batch = [pop() for _ in range(min(queued, BATCH_LIMIT_CHUNKS))]
            self._taken_bytes += sum(map(len, batch))
            return batch
        batch = [pop()]
        room_bytes = BATCH_LIMIT_BYTES
        while len(batch) < min(queued, BATCH_LIMIT_CHUNKS) and (room_bytes := room_bytes - len(chunks[0])) >= 0:
            batch.append(pop())
        self._taken_bytes += sum(map(len, batch))
        return batch

    def _make_room(self) -> None:
        """Let the producer go on, if it waits; called on the loop."""
        if self._blocked:
            with self._room:
                self._room.notify()
        writer, self._writer = self._writer, None
        if writer is not None:
            _resolve(writer)

    def finish(self) -> None:
        """Say that nothing follows; called on the loop. What is queued can still be taken."""
        self._finished = True
        self._wake_reader()

    def close(self) -> None:
        """Throw away what is queued and let the producer go; called on the loop when the reader leaves. Idempotent."""
        self._closed = True
        # A chunk that the producer appends at this moment goes with the buffer.
        self._chunks.clear()
        self._make_room()
        self._wake_reader()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
