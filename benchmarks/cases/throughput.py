"""As fast as it goes: one stream, a hundred at once, and one with large chunks; the same over a WebSocket."""

from __future__ import annotations

import asyncio

from benchmarks.cases.stage import Figures, Stage, Usage
from benchmarks.load.reader import StreamFailed, opened
from benchmarks.load.websocket import FrameReader
from benchmarks.plan import TOOL, Plan


async def one(stage: Stage) -> Figures:
    """1 stream of 200,000 chunks of 100 bytes."""
    return await _streams(stage, 1, 200_000, 100)


async def many(stage: Stage) -> Figures:
    """100 streams at once of 2,000 chunks of 100 bytes each."""
    return await _streams(stage, 100, 2_000, 100)


async def big(stage: Stage) -> Figures:
    """1 stream of 2,000 chunks of 64 KiB."""
    return await _streams(stage, 1, 2_000, 65_536)


async def ws_one(stage: Stage) -> Figures:
    """`one` as a run on one WebSocket."""
    chunks = 200_000
    reader = FrameReader({"tool": TOOL, "args": Plan(chunks).arguments()})
    usage = stage.meter()
    async with opened([reader], stage.served.port):
        await reader.done
    if reader.events != chunks:
        raise StreamFailed(f"{reader.events} frames instead of {chunks}")
    return _figures(usage(), chunks)


async def _streams(stage: Stage, streams: int, chunks: int, size: int) -> Figures:
    chunks = max(1, int(chunks * stage.target.scale))
    readers = stage.readers(streams, Plan(chunks, size))
    usage = stage.meter()
    # Not a gather of tasks: the readers are protocols and need none.
    async with opened(readers, stage.served.port):
        await asyncio.wait([reader.done for reader in readers])
    figures = _figures(usage(), streams * chunks)
    for reader in readers:
        reader.done.result()
    stage.check(readers, chunks)
    return figures


def _figures(usage: Usage, events: int) -> Figures:
    return {
        "cpu_us": usage.target_s / events * 1e6,
        "events_per_s": events / usage.wall_s,
        "load_core_busy": usage.load_core_busy,
    }
