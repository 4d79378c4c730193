"""One run of another gateway, followed: its entries in, its events out, in order and once each.

Made by the reader, which hands it the entries of the run's stream. The chunks' own numbers decide: those that were
delivered are not delivered again, and where one is missing, whatever the reason, the sink is told the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.errors import GatewayError
from gateway.events import Chunks, Ended, Outcome, Status
from gateway.runlog.shared.entries import CHUNKS, COUNT, END, STATUS, decode_chunks, decode_end, decode_status
from gateway.runlog.shared.records import RunRecord

START = b"0-0"


class FollowSink(Protocol):
    """Who is told what a followed run says: in order, from the reader's task; nothing may block or raise."""

    def on_batch(self, batch: Chunks) -> None:
        """Chunks; numbers go up, and where one is missing `on_gap` came before."""

    def on_status(self, status: Status) -> None:
        """A status."""

    def on_gap(self, first: int, last: int) -> None:
        """These chunks can't be delivered: the log dropped or lost them."""

    def on_end(self, ended: Ended) -> None:
        """The last event, once. Outcome EXPIRED: the log doesn't know the run any more."""


class Following:
    """A run that is followed, until its end or `close`. Nothing is delivered after either."""

    def __init__(
        self, record: RunRecord, sink: FollowSink, on_readers: Callable[[int], None], on_close: Callable[[Following], None]
    ) -> None:
        self.record = record
        self.closed = False
        # The last entry that was taken from the stream; and the number of the chunk that comes next.
        self.cursor = START
        self.next = 1
        # How often in a row the record was not found.
        self.misses = 0
        self._sink = sink
        self._on_readers = on_readers
        self._on_close = on_close

    def __repr__(self) -> str:
        return f"<Following {self.record.id} of {self.record.owner}: chunk {self.next} is next>"

    def readers(self, count: int) -> None:
        """Say how many subscribers this gateway has for the run, to its owner, whose policies count them. Sync; repeated by itself."""
        if not self.closed:
            self._on_readers(count)

    def close(self) -> None:
        """Stop following; idempotent, and allowed from within the sink."""
        if not self.closed:
            self.closed = True
            self._on_readers(0)
            self._on_close(self)

    def deliver(self, entry_id: bytes, fields: Sequence[bytes]) -> None:
        """Take one entry of the stream.

        Raises:
            ValueError, KeyError: the entry can't be read.
        """
        if self.closed:
            return
        self.cursor = entry_id
        self.misses = 0
        name, data = fields[0], fields[1]
        if name == CHUNKS:
            self._deliver_chunks(decode_chunks(data))
        elif name == STATUS:
            self._sink.on_status(decode_status(data))
        elif name == END and fields[2] == COUNT:
            self._end(decode_end(data, int(fields[3])))
        # Else a word of a later version, which this one can't pass on.

    def expire(self) -> None:
        """Say that the log doesn't know the run any more."""
        error = GatewayError("run-expired", f"The shared log does not know run {self.record.id} any more")
        self._end(Ended(Outcome.EXPIRED, self.next - 1, error=error))

    def _deliver_chunks(self, batch: Chunks) -> None:
        known = self.next - batch.first
        if known >= len(batch.payloads):
            return
        if known < 0:
            self._sink.on_gap(self.next, batch.first - 1)
        elif known > 0:
            payloads = batch.payloads[known:]
            size_bytes = batch.size_bytes * len(payloads) // len(batch.payloads)
            attributes = None if batch.attributes is None else {n: value for n, value in batch.attributes.items() if n >= self.next}
            batch = Chunks(self.next, payloads, size_bytes, attributes or None)
        self.next = batch.first + len(batch.payloads)
        if not self.closed:
            self._sink.on_batch(batch)

    def _end(self, ended: Ended) -> None:
        if self.closed:
            return
        if ended.chunks >= self.next:
            self._sink.on_gap(self.next, ended.chunks)
        if not self.closed:
            self.close()
            self._sink.on_end(ended)
