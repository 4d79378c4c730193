"""buffer.py: nothing lost, nobody left waiting, bounded."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Iterator

import pytest

from gateway.runtime.buffer import ChunkBuffer
from gateway.runtime.limits import BUFFER_LIMIT_BYTES, BUFFER_LIMIT_CHUNKS

from .conftest import eventually


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Make threads interrupt each other as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("seed", range(3))
async def test_thread_and_loop_interleaved_lose_nothing(seed: int) -> None:
    buffer = ChunkBuffer(asyncio.get_running_loop())
    count = 60_000
    dice = random.Random(seed)
    pauses = {dice.randrange(count) for _ in range(200)}

    def produce() -> None:
        for number in range(count):
            assert buffer.put(b"%d" % number)
            if number in pauses:
                # Lets the reader run dry, so that both kinds of waiting happen.
                threading.Event().wait(0.0005)

    job = asyncio.create_task(asyncio.to_thread(produce))
    taken = 0
    while taken < count:
        batch = await asyncio.wait_for(buffer.take(), 10)
        for chunk in batch:
            assert chunk == b"%d" % taken
            taken += 1
    await job
    assert buffer.size_bytes == 0
    buffer.finish()
    assert await buffer.take() == []


async def test_reader_that_waits_is_woken_by_a_chunk_and_by_the_end() -> None:
    buffer = ChunkBuffer(asyncio.get_running_loop())
    reader = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    assert await buffer.aput(b"1")
    assert await reader == [b"1"]
    reader = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    buffer.finish()
    assert await asyncio.wait_for(reader, 5) == []


async def test_what_is_queued_can_be_taken_after_the_end() -> None:
    buffer = ChunkBuffer(asyncio.get_running_loop())
    await buffer.aput(b"1")
    buffer.finish()
    assert await buffer.take() == [b"1"]
    assert await buffer.take() == []


@pytest.mark.parametrize(("size", "fits"), [(1, BUFFER_LIMIT_CHUNKS), (BUFFER_LIMIT_BYTES // 4, 4), (BUFFER_LIMIT_BYTES * 2, 1)])
@pytest.mark.parametrize("way", ["thread", "task"])
async def test_producer_waits_when_full_and_goes_on_when_taken_from(size: int, fits: int, way: str) -> None:
    buffer = ChunkBuffer(asyncio.get_running_loop())
    done = 0

    def produce() -> None:
        nonlocal done
        while done < 2 * BUFFER_LIMIT_CHUNKS and buffer.put(b"x" * size):
            done += 1

    async def aproduce() -> None:
        nonlocal done
        while done < 2 * BUFFER_LIMIT_CHUNKS and await buffer.aput(b"x" * size):
            done += 1

    job = asyncio.create_task(asyncio.to_thread(produce) if way == "thread" else aproduce())
    await eventually(lambda: done == fits)
    assert len(buffer) == fits
    first = len(await buffer.take())
    await eventually(lambda: done == fits + first)
    assert buffer.size_bytes <= max(BUFFER_LIMIT_BYTES, size)
    buffer.close()
    await asyncio.wait_for(job, 5)
    assert await buffer.take() == []


async def test_closed_buffer_keeps_nothing_and_says_so() -> None:
    buffer = ChunkBuffer(asyncio.get_running_loop())
    buffer.close()
    buffer.close()
    assert not await buffer.aput(b"1")
    assert not await asyncio.to_thread(buffer.put, b"1")
    assert len(buffer) == 0
