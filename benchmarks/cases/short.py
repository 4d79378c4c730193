"""Streams of 3 chunks, 32 at once on connections that are kept: the cost of a request."""

from __future__ import annotations

import asyncio
import time

from benchmarks.cases.stage import Figures, Stage
from benchmarks.load.http import EventReader
from benchmarks.load.reader import StreamFailed, opened
from benchmarks.plan import Plan

AT_ONCE = 32
CHUNKS = 3
DURATION_S = 3.0


async def short(stage: Stage) -> Figures:
    """Streams of 3 chunks, 32 at once, for 3 seconds."""
    request = stage.target.request(Plan(CHUNKS))
    until = time.monotonic() + DURATION_S
    requests = AT_ONCE

    def again() -> bytes | None:
        nonlocal requests
        if time.monotonic() >= until:
            return None
        requests += 1
        return request

    readers = [EventReader(request, stage.target.mark, again=again) for _ in range(AT_ONCE)]
    usage = stage.meter()
    async with opened(readers, stage.served.port):
        await asyncio.wait([reader.done for reader in readers])
    spent = usage()
    for reader in readers:
        reader.done.result()
    events = sum(reader.events for reader in readers)
    if events != requests * (CHUNKS + stage.target.extra_events):
        raise StreamFailed(f"{events} events of {requests} requests")
    return {
        "cpu_us": spent.target_s / requests * 1e6,
        "requests_per_s": requests / spent.wall_s,
        "load_core_busy": spent.load_core_busy,
    }
