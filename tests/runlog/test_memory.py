from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.events import ChunkAttributes, Chunks, Gap
from gateway.runlog import memory
from gateway.runlog.memory import BATCH_OVERHEAD_BYTES, CHUNK_OVERHEAD_BYTES, MemoryLog
from tests.runlog.contract import LogUnderTest, RunLogContract


@dataclass
class Holder:
    """A reader who must lose nothing."""

    cursor: int
    taken_bytes: int = 0
    lag_bytes: int = 10**9


def log_of(*batches: list[bytes], limit_bytes: int = 10**9, limit_chunks: int = 10**9) -> MemoryLog:
    log = MemoryLog(limit_bytes=limit_bytes, limit_chunks=limit_chunks)
    for batch in batches:
        log.append(batch, sum(map(len, batch)))
    return log


def size_of(*batches: list[bytes]) -> int:
    return sum(BATCH_OVERHEAD_BYTES + sum(len(payload) + CHUNK_OVERHEAD_BYTES for payload in batch) for batch in batches)


class MemoryUnderTest(LogUnderTest):
    async def overfill(self) -> None:
        for _ in range(10_000):
            self.append(b"x" * 1000)


class TestContract(RunLogContract):
    @pytest.fixture
    def log(self) -> LogUnderTest:
        log = MemoryLog(limit_bytes=1_000_000, limit_chunks=5000)
        return MemoryUnderTest(log, log)


def test_sizes_count_the_objects_that_hold_the_chunks() -> None:
    log = log_of([b"a", b"b"], [b"c"])
    assert log.size_bytes == log.total_bytes == size_of([b"a", b"b"], [b"c"])


def test_raw_bytes_beside_a_chunk_are_counted() -> None:
    log = log_of()
    log.append([b"{}"], 2, {0: ChunkAttributes(raw=b"x" * 1000)})
    assert log.size_bytes == size_of([b"{}"]) + 1000


def test_eviction_by_bytes_leaves_a_gap() -> None:
    log = log_of([b"x" * 100], [b"y" * 100], [b"z" * 100], limit_bytes=2 * size_of([b"x" * 100]))
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


def test_what_a_place_has_yet_to_take_is_not_evicted() -> None:
    log = log_of([b"1"], limit_chunks=2)
    place = Holder(1)
    log.places.append(place)
    for number in range(2, 7):
        log.append([b"%d" % number], 1)
    assert log.first == 1
    place.cursor = 4
    log.append([b"7"], 1)
    assert log.first == 4
    log.places.remove(place)
    log.append([b"8"], 1)
    assert (log.first, log.next) == (7, 9)


@pytest.mark.parametrize(("cursor", "chunks"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 4)])
def test_bytes_before_counts_what_was_read_up_to_there(cursor: int, chunks: int) -> None:
    log = log_of([b"11", b"22"], [b"33", b"44"])
    assert log.bytes_before(cursor) == chunks * log.total_bytes // 4


def test_lag_is_measured_in_bytes_and_in_chunks() -> None:
    log = log_of([b"x" * 100], limit_chunks=8)
    by_bytes, by_chunks = Holder(1, lag_bytes=size_of([b"x" * 100])), Holder(1)
    log.places.append(by_bytes)
    assert (log.is_lagging(), log.is_lagging(2)) == (False, True)
    log.append([b"y"], 1)
    assert log.is_lagging()
    log.places[:] = [by_chunks]
    assert not log.is_lagging()
    log.append([b"z"] * 3, 3)
    assert log.is_lagging()


def test_finding_a_place_looks_at_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: Counter[str] = Counter()

    def counted(batch: Chunks) -> int:
        looked["batches"] += 1
        return batch.first

    monkeypatch.setattr(memory, "_first", counted)
    log = log_of(*([b"%d" % number] for number in range(50_000)), limit_chunks=40_000)
    log.read(30_000)
    log.bytes_before(20_000)
    assert looked["batches"] <= 2 * 17


def test_close_gives_everything_back() -> None:
    log = log_of([b"1"], [b"2"])
    log.close()
    assert (log.size_bytes, log.read(1), log.read(3)) == (0, Gap(1, 2, "evicted"), None)


class LogAgainstAList(RuleBasedStateMachine):
    """The log, beside a list of every chunk there ever was."""

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(limit_bytes=3000, limit_chunks=12)
        self.chunks: list[bytes] = []
        self.places: list[Holder] = []

    @rule(payloads=st.lists(st.binary(max_size=60), min_size=1, max_size=6))
    def append(self, payloads: list[bytes]) -> None:
        batch = self.log.append(payloads, sum(map(len, payloads)))
        self.chunks += payloads
        assert batch.first == len(self.chunks) - len(payloads) + 1
        # Batches hold at most six chunks: what a place needs, and the batch that it stands in, may be more than the limits say.
        if self.log.first + 6 <= self._needed():
            assert self.log.next - self.log.first <= 12
            assert self.log.size_bytes <= 3000

    @rule(data=st.data())
    def a_place_comes(self, data: st.DataObject) -> None:
        place = Holder(data.draw(st.integers(self.log.first, self.log.next)))
        self.places.append(place)
        self.log.places.append(place)

    @rule(data=st.data())
    def a_place_moves_or_goes(self, data: st.DataObject) -> None:
        if self.places:
            place = data.draw(st.sampled_from(self.places))
            place.cursor = data.draw(st.integers(place.cursor, self.log.next))
            if data.draw(st.booleans()):
                self.places = [other for other in self.places if other is not place]
                self.log.places[:] = self.places

    @rule(wanted=st.integers(0, 500), keep=st.integers(0, 2))
    def shrink(self, wanted: int, keep: int) -> None:
        before = self.log.size_bytes
        assert self.log.shrink(wanted, keep) == before - self.log.size_bytes

    @rule(data=st.data(), limit=st.none() | st.integers(1, 8))
    def read_all_from(self, data: st.DataObject, limit: int | None) -> None:
        cursor = data.draw(st.integers(1, self.log.next))
        begin, counted = self.log.bytes_before(cursor), 0
        while (item := self.log.read(cursor, limit)) is not None:
            if isinstance(item, Gap):
                assert item == Gap(cursor, self.log.first - 1, "evicted")
                cursor = item.last + 1
                begin = self.log.bytes_before(cursor)
            else:
                assert item.first == cursor
                assert item.payloads == self.chunks[cursor - 1 : cursor - 1 + len(item.payloads)]
                counted += item.size_bytes
                cursor += len(item.payloads)
                assert self.log.bytes_before(cursor) == begin + counted
        assert cursor == len(self.chunks) + 1

    @invariant()
    def is_bounded_and_counts_right(self) -> None:
        assert self.log.next == len(self.chunks) + 1
        assert self.log.total_bytes - self.log.bytes_before(self.log.first) == self.log.size_bytes
        assert self.log.first <= self._needed()

    def _needed(self) -> int:
        return min((place.cursor for place in self.places), default=self.log.next)


TestLogAgainstAList = LogAgainstAList.TestCase
