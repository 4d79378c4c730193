"""The contract of a run's log: what was delivered, numbered, for readers at different places; and who records it elsewhere.

A run appends to its log and reads from it through its subscriptions. Numbers begin at 1 and have no holes: what a log
no longer has is a `Gap` to whoever asks for it, never a silent hole, and chunk n is the same bytes for every reader at every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.events import ChunkAttributes, Chunks, Ended, Gap, Status


class LogWriter(Protocol):
    """The end of a log that its run writes to. One writer; not thread-safe."""

    def append(self, payloads: list[bytes], size_bytes: int, attributes: Mapping[int, ChunkAttributes] | None = None) -> Chunks:
        """Number a batch, which is not empty, and keep it; return it.

        `size_bytes` is the payloads' total length. `attributes` is keyed by the index into `payloads`; None where no
        chunk carries anything. What is older may be forgotten for it.
        """


class LogReader(Protocol):
    """The end of a log that readers read from, each with a cursor of its own."""

    @property
    def first(self) -> int:
        """The number of the oldest chunk that is here; `next` where there is none."""

    @property
    def next(self) -> int:
        """The number of the chunk that comes next."""

    def read(self, cursor: int, limit: int | None = None) -> Chunks | Gap | None:
        """Return what begins at number `cursor`: a batch or a part of one; a gap where that is gone; None at the end.

        At most `limit` chunks, None for the whole batch; with 0 only a gap is returned. The parts of a batch have
        sizes that add up to its own.
        """


class RunRecorder(Protocol):
    """Who records a run for other gateways. Called by the run as it happens, in order; must not raise, must not block."""

    def appended(self, batch: Chunks) -> None:
        """A batch was appended to the log."""

    def status(self, status: Status) -> None:
        """The run says what it is doing."""

    def ended(self, end: Ended) -> None:
        """The run has ended; called exactly once, last."""
