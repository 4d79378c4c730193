"""1,000 streams at once, 10 chunks a second each, for 10 seconds: the cost of an event that comes alone.

The added latency is from the moment the upstream made the chunk to the moment the load generator had read it. CPU
time includes the opening of the streams, latency only events that came after all were open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.cases.stage import Figures, Stage, percentile
from benchmarks.load.reader import StreamFailed, StreamReader, opened
from benchmarks.load.websocket import FrameReader
from benchmarks.plan import TOOL, Plan

STREAMS = 1000
CHUNKS = 100
PLAN = Plan(CHUNKS, interval_us=100_000)


async def paced(stage: Stage) -> Figures:
    """1,000 streams at once, 10 chunks a second each, for 10 seconds."""
    readers = [stage.reader(PLAN, with_latency=True) for _ in range(STREAMS)]
    return await _measure(stage, readers, CHUNKS + stage.target.extra_events)


async def ws_paced(stage: Stage) -> Figures:
    """`paced` over 1,000 WebSockets."""
    payload = {"tool": TOOL, "args": PLAN.arguments()}
    readers = [FrameReader(payload, stamps=stage.target.stamps) for _ in range(STREAMS)]
    return await _measure(stage, readers, CHUNKS)


async def _measure(stage: Stage, readers: Sequence[StreamReader], events_each: int) -> Figures:
    usage = stage.meter()
    async with opened(readers, stage.served.port):
        await asyncio.wait([reader.first for reader in readers])
        for reader in readers:
            reader.latencies_ns.clear()
        await asyncio.wait([reader.done for reader in readers])
    spent = usage()
    for reader in readers:
        reader.done.result()
        if reader.events != events_each:
            raise StreamFailed(f"{reader.events} events instead of {events_each}")
    latencies_ms = [latency / 1e6 for reader in readers for latency in reader.latencies_ns]
    return {
        "cpu_us": spent.target_s / (STREAMS * CHUNKS) * 1e6,
        "p50_ms": percentile(latencies_ms, 50),
        "p99_ms": percentile(latencies_ms, 99),
        "load_core_busy": spent.load_core_busy,
    }
