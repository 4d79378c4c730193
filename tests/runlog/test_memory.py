from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.events import ChunkAttributes, Chunks, Gap
from gateway.runlog.memory import CHUNK_OVERHEAD_BYTES, MemoryLog


def log_of(*batches: list[bytes], limit_bytes: int = 10**9, limit_chunks: int = 10**9) -> MemoryLog:
    log = MemoryLog(limit_bytes=limit_bytes, limit_chunks=limit_chunks)
    for batch in batches:
        log.append(batch, sum(map(len, batch)))
    return log


def test_append_numbers_chunks_from_one_without_a_hole() -> None:
    log = log_of([b"a", b"b"], [b"c"])
    assert (log.first, log.next) == (1, 4)
    assert [(log.read(1)), log.read(3)] == [
        Chunks(1, [b"a", b"b"], 2 + 2 * CHUNK_OVERHEAD_BYTES),
        Chunks(3, [b"c"], 1 + CHUNK_OVERHEAD_BYTES),
    ]


def test_attributes_are_keyed_by_the_chunks_number() -> None:
    log = log_of([b"a"])
    final = ChunkAttributes(is_final=True)
    log.append([b"b", b"c"], 2, {1: final})
    item = log.read(2)
    assert isinstance(item, Chunks)
    assert item.attributes == {3: final}


def test_read_within_a_batch_returns_its_rest() -> None:
    item = log_of([b"a", b"b", b"c"]).read(2)
    assert isinstance(item, Chunks)
    assert (item.first, item.payloads) == (2, [b"b", b"c"])


def test_read_at_the_end_returns_none() -> None:
    assert log_of([b"a"]).read(2) is None


def test_eviction_by_bytes_leaves_a_gap() -> None:
    log = log_of([b"x" * 100], [b"y" * 100], [b"z" * 100], limit_bytes=300)
    assert log.read(1) == Gap(1, 1, "evicted")
    assert log.first == 2


def test_eviction_by_chunks_keeps_the_newest_whole_batches() -> None:
    log = log_of([b"1", b"2"], [b"3", b"4"], [b"5"], limit_chunks=3)
    assert log.read(1) == Gap(1, 2, "evicted")
    assert log.first == 3


def test_a_batch_larger_than_the_limit_is_kept_alone() -> None:
    log = log_of([b"a"], [b"x" * 1000], limit_bytes=10)
    assert log.first == 2
    assert isinstance(log.read(2), Chunks)


def test_discard_forgets_whole_batches_only() -> None:
    log = log_of([b"1", b"2"], [b"3", b"4"])
    log.discard(4)
    assert log.first == 3
    log.discard(5)
    assert (log.first, log.next, log.size_bytes) == (5, 5, 0)


@pytest.mark.parametrize(("cursor", "chunks"), [(1, 4), (2, 3), (3, 2), (4, 1), (5, 0)])
def test_bytes_from_counts_what_a_reader_there_will_read(cursor: int, chunks: int) -> None:
    log = log_of([b"11", b"22"], [b"33", b"44"])
    assert log.bytes_from(cursor) == chunks * (2 + CHUNK_OVERHEAD_BYTES)


class LogAgainstAList(RuleBasedStateMachine):
    """The log, beside a list of every chunk there ever was."""

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(limit_bytes=1000, limit_chunks=12)
        self.chunks: list[bytes] = []

    @rule(payloads=st.lists(st.binary(max_size=60), min_size=1, max_size=6))
    def append(self, payloads: list[bytes]) -> None:
        batch = self.log.append(payloads, sum(map(len, payloads)))
        self.chunks += payloads
        assert batch.first == len(self.chunks) - len(payloads) + 1

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        before = data.draw(st.integers(1, self.log.next))
        self.log.discard(before)
        assert self.log.first <= max(before, self.log.first)

    @rule(data=st.data())
    def read_all_from(self, data: st.DataObject) -> None:
        cursor = data.draw(st.integers(1, self.log.next))
        remaining, counted = self.log.bytes_from(cursor), 0
        while (item := self.log.read(cursor)) is not None:
            if isinstance(item, Gap):
                assert item.first == cursor
                assert item.last == self.log.first - 1
                cursor = item.last + 1
            else:
                assert item.first == cursor
                assert item.payloads == self.chunks[cursor - 1 : cursor - 1 + len(item.payloads)]
                counted += item.size_bytes
                cursor += len(item.payloads)
        assert cursor == len(self.chunks) + 1
        assert counted == remaining

    @invariant()
    def is_bounded_and_counts_right(self) -> None:
        kept = self.chunks[self.log.first - 1 :]
        assert self.log.next == len(self.chunks) + 1
        assert self.log.size_bytes == sum(len(chunk) + CHUNK_OVERHEAD_BYTES for chunk in kept)
        assert self.log.total_bytes == sum(len(chunk) + CHUNK_OVERHEAD_BYTES for chunk in self.chunks)
        # A batch of at most six chunks may stand above the limits alone.
        assert len(kept) <= 12
        assert self.log.size_bytes <= 1000


TestLogAgainstAList = LogAgainstAList.TestCase
