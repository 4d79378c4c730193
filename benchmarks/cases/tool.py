"""End to end: a Python generator in the gateway's own worker yields 200,000 times; chunks at the client.

The worker runs on the core of the load generator: gateway and worker have one each.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cases.stage import Figures, Stage
from benchmarks.load.http import EventReader
from benchmarks.load.reader import StreamFailed, opened
from benchmarks.process import Cores, children, cpu_s, pin
from benchmarks.targets import Gateway, Served, Stand, Target, post

ADAPTER = Path(__file__).with_name("counting.py")
CHUNKS = 200_000
WARM_UP_CHUNKS = 2_000


@contextlib.contextmanager
def serving(target: Target, stand: Stand) -> Iterator[Served]:
    """Run the gateway with one worker of its own, each on its core."""
    assert isinstance(target, Gateway)
    with target.serving_pool(stand, f"adapter = {json.dumps(str(ADAPTER))}\nsize = 1") as served:
        pin(_worker(served), Cores.of_machine().load)
        yield served


async def warm_up(stage: Stage) -> None:
    """Run a short count."""
    await _count(stage, WARM_UP_CHUNKS)


async def tool(stage: Stage) -> Figures:
    """A generator that yields `{"i": i}` 200,000 times."""
    worker = _worker(stage.served)
    before = cpu_s(worker)
    usage = stage.meter()
    await _count(stage, CHUNKS)
    spent = usage()
    return {
        "events_per_s": CHUNKS / spent.wall_s,
        "cpu_us": spent.target_s / CHUNKS * 1e6,
        "worker_cpu_us": (cpu_s(worker) - before) / CHUNKS * 1e6,
    }


async def _count(stage: Stage, chunks: int) -> None:
    reader = EventReader(post("/v1/tools/count/stream", {"n": chunks}), stage.target.mark)
    async with opened([reader], stage.served.port):
        await reader.done
    if reader.events != chunks + stage.target.extra_events:
        raise StreamFailed(f"{reader.events} events instead of {chunks} chunks; {reader.tail[-300:]!r}")


def _worker(served: Served) -> int:
    workers = children(served.process.pid)
    if len(workers) != 1:
        raise RuntimeError(f"the gateway has {len(workers)} children, not one worker")
    return workers[0]
