"""What every run log does, whatever it is made of: one suite for all of them (gateway/runlog/base.py says it in words).

A test class takes it over and gives the fixture `log`: a LogUnderTest with room for ROOM_CHUNKS chunks of ROOM_BYTES bytes at least.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from gateway.events import ChunkAttributes, Chunks, Gap
from gateway.runlog.base import LogReader, LogWriter

ROOM_CHUNKS = 2000
ROOM_BYTES = 100


@dataclass(frozen=True)
class LogUnderTest:
    """Both ends of one log. After `settle` the reader has what the writer has; `overfill` appends until the first chunk is gone."""

    writer: LogWriter
    reader: LogReader

    async def settle(self) -> None:
        """Wait until all that was appended can be read."""

    async def overfill(self) -> None:
        """Append until the oldest chunk is not kept any more."""
        raise NotImplementedError

    def append(self, *payloads: bytes, attributes: dict[int, ChunkAttributes] | None = None) -> Chunks:
        return self.writer.append(list(payloads), sum(map(len, payloads)), attributes)


def everything(reader: LogReader, cursor: int = 1, limit: int | None = None) -> list[bytes]:
    """All payloads from a cursor on, which must stand there without a gap and in order."""
    payloads: list[bytes] = []
    while (item := reader.read(cursor, limit)) is not None:
        assert isinstance(item, Chunks), item
        assert item.first == cursor
        assert limit is None or len(item.payloads) <= limit
        payloads += item.payloads
        cursor += len(item.payloads)
    assert cursor == reader.next
    return payloads


class RunLogContract:
    """The suite."""

    async def test_a_new_log_is_empty(self, log: LogUnderTest) -> None:
        assert (log.reader.first, log.reader.next, log.reader.read(1)) == (1, 1, None)

    async def test_chunks_are_numbered_from_one_without_a_hole(self, log: LogUnderTest) -> None:
        batches = [log.append(b"1", b"2"), log.append(b"3"), log.append(b"4", b"5", b"6")]
        assert [batch.first for batch in batches] == [1, 3, 4]
        await log.settle()
        assert (log.reader.first, log.reader.next) == (1, 7)
        assert everything(log.reader) == [b"1", b"2", b"3", b"4", b"5", b"6"]

    @pytest.mark.parametrize("payload", [b"", b'"\\u2028"', "ü".encode(), b"x" * ROOM_BYTES, b"\xff\x00", b"[1,\n2]"])
    async def test_payloads_are_the_same_bytes(self, log: LogUnderTest, payload: bytes) -> None:
        log.append(payload, b"next")
        await log.settle()
        assert everything(log.reader) == [payload, b"next"]

    async def test_attributes_are_found_by_the_chunks_number(self, log: LogUnderTest) -> None:
        final = ChunkAttributes(is_final=True, metadata={"k": "v"}, raw=b"\xff", chunk_id="mine")
        log.append(b"1")
        log.append(b"2", b"3", attributes={1: final})
        await log.settle()
        item = log.reader.read(3)
        assert isinstance(item, Chunks)
        assert item.attributes is not None
        assert item.attributes[3] == final

    async def test_read_in_the_middle_of_a_batch_returns_the_rest(self, log: LogUnderTest) -> None:
        log.append(b"1", b"2", b"3")
        await log.settle()
        assert everything(log.reader, 2) == [b"2", b"3"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
    async def test_read_returns_at_most_the_limit(self, log: LogUnderTest, limit: int) -> None:
        for first in range(0, 50, 5):
            log.append(*(b"%d" % number for number in range(first, first + 5)))
        await log.settle()
        assert everything(log.reader, 1, limit) == [b"%d" % number for number in range(50)]

    async def test_the_parts_of_a_batch_have_sizes_that_add_up(self, log: LogUnderTest) -> None:
        batch = log.append(*(b"x" * size for size in range(7)))
        await log.settle()
        parts = [log.reader.read(cursor, 1) for cursor in range(1, 8)]
        assert sum(part.size_bytes for part in parts if isinstance(part, Chunks)) == batch.size_bytes

    async def test_a_limit_of_nothing_reads_nothing(self, log: LogUnderTest) -> None:
        log.append(b"1")
        await log.settle()
        assert log.reader.read(1, 0) is None

    async def test_read_at_and_after_the_end_is_none(self, log: LogUnderTest) -> None:
        log.append(b"1")
        await log.settle()
        assert (log.reader.read(2), log.reader.read(3)) == (None, None)

    async def test_what_is_gone_is_a_gap_up_to_what_is_there(self, log: LogUnderTest) -> None:
        await log.overfill()
        await log.settle()
        first = log.reader.first
        assert 1 < first < log.reader.next
        assert log.reader.read(1) == Gap(1, first - 1, "evicted")
        assert log.reader.read(first - 1, 0) == Gap(first - 1, first - 1, "evicted")
        assert isinstance(log.reader.read(first), Chunks)

    @pytest.mark.parametrize("seed", range(5))
    async def test_readers_at_any_place_read_the_same(self, log: LogUnderTest, seed: int) -> None:
        rng = random.Random(seed)
        truth: list[bytes] = []
        while len(truth) < ROOM_CHUNKS - 20:
            batch = [rng.randbytes(rng.randrange(ROOM_BYTES)) for _ in range(rng.randrange(1, 20))]
            assert log.append(*batch).first == len(truth) + 1
            truth += batch
        await log.settle()
        for _ in range(50):
            cursor = rng.randrange(1, len(truth) + 2)
            assert everything(log.reader, cursor, rng.choice([None, 1, 3, 50])) == truth[cursor - 1 :]
