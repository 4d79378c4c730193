"""2,000 open streams that said something once and are silent: memory for each, and CPU while nothing happens."""

from __future__ import annotations

import asyncio

from benchmarks.cases.stage import Figures, Stage
from benchmarks.load.reader import opened
from benchmarks.plan import Plan
from benchmarks.process import private_bytes

STREAMS = 2000
SETTLE_S = 1.0
WATCHED_S = 3.0


async def idle(stage: Stage) -> Figures:
    """2,000 open silent streams."""
    before = private_bytes(stage.served.process.pid)
    readers = stage.readers(STREAMS, Plan(1, hold=True))
    async with opened(readers, stage.served.port):
        await asyncio.wait([reader.first for reader in readers])
        for reader in readers:
            reader.first.result()
        await asyncio.sleep(SETTLE_S)
        after = private_bytes(stage.served.process.pid)
        usage = stage.meter()
        await asyncio.sleep(WATCHED_S)
        spent = usage()
    return {"kib_per_stream": (after - before) / STREAMS / 1024, "cpu_percent": spent.target_s / spent.wall_s * 100}
