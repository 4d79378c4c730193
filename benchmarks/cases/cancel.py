"""A client closes its connection: how long until the upstream sees its call cancelled. A hundred times, one after another.

Busy is a chunk every millisecond, flooded as fast as flow control lets, silent one chunk and then nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from benchmarks.cases.stage import Figures, Stage, percentile
from benchmarks.load.reader import opened
from benchmarks.plan import ENDLESS, Plan
from benchmarks.upstream.handle import ReportReader, reports

TIMES = 100
# What a stream runs before it is cut; a flooded one has then filled every buffer that it can.
RUNS_S = 0.02


async def cancel(stage: Stage) -> Figures:
    """Close the connection of an endless stream: busy, flooded, silent."""
    kinds = {"busy": Plan(ENDLESS, interval_us=1000), "flooded": Plan(ENDLESS), "silent": Plan(1, hold=True)}
    figures: Figures = {}
    async with reports(stage.upstream) as reader:
        for kind, plan in kinds.items():
            took_ms = [await _cancelled_after_ms(stage, reader, replace(plan, key=f"{kind}-{n}")) for n in range(TIMES)]
            figures[f"{kind}_p50_ms"] = percentile(took_ms, 50)
            figures[f"{kind}_p99_ms"] = percentile(took_ms, 99)
    return figures


async def _cancelled_after_ms(stage: Stage, reports_of: ReportReader, plan: Plan) -> float:
    reader = stage.reader(plan)
    async with opened([reader], stage.served.port):
        await reader.first
        await asyncio.sleep(RUNS_S)
        left_at = time.monotonic_ns()
        reader.leave()
        return (await reports_of.cancelled_at_ns(plan.key) - left_at) / 1e6
