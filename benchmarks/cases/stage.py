"""Where a case plays: a serving target with its upstream, and the meter of all three processes' CPU time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.load.http import EventReader
from benchmarks.load.reader import StreamFailed, opened
from benchmarks.plan import Plan
from benchmarks.process import cpu_s
from benchmarks.targets import Served, Target
from benchmarks.upstream.handle import Upstream

Figures = dict[str, float]

WARM_UP_STREAMS = 20
WARM_UP_CHUNKS = 200


@dataclass(frozen=True, slots=True)
class Usage:
    """What a piece of work took, in seconds: on the clock, and of CPU by target, upstream and load generator."""

    wall_s: float
    target_s: float
    upstream_s: float
    load_s: float

    @property
    def load_core_busy(self) -> float:
        """How busy the core of upstream and load generator was, 0 to 1. Near 1 it was them who limited the rate."""
        return (self.upstream_s + self.load_s) / self.wall_s


@dataclass(frozen=True, slots=True)
class Stage:
    """One target that serves, and its upstream."""

    target: Target
    served: Served
    upstream: Upstream

    def meter(self) -> Callable[[], Usage]:
        """Begin to measure; the function that is returned says what it took since."""

        def readings() -> tuple[float, ...]:
            return time.monotonic(), cpu_s(self.served.process.pid), cpu_s(self.upstream.process.pid), cpu_s(os.getpid())

        before = readings()
        return lambda: Usage(*(now - then for now, then in zip(readings(), before, strict=True)))

    def reader(self, plan: Plan, *, with_latency: bool = False) -> EventReader:
        """Return a reader that asks the target for a stream."""
        stamps = self.target.stamps if with_latency else None
        return EventReader(self.target.request(plan), self.target.mark, stamps=stamps)

    def readers(self, count: int, plan: Plan) -> list[EventReader]:
        return [self.reader(plan) for _ in range(count)]

    async def complete(self, readers: Sequence[EventReader], chunks: int) -> None:
        """Run streams to their ends.

        Raises:
            StreamFailed: one was cut, or delivered another number of events than it had to.
        """
        async with opened(readers, self.served.port):
            await asyncio.gather(*(reader.done for reader in readers))
        self.check(readers, chunks)

    def check(self, readers: Sequence[EventReader], chunks: int) -> None:
        """Compare the events that came with what each stream was to deliver."""
        for reader in readers:
            if reader.events != chunks + self.target.extra_events:
                raise StreamFailed(
                    f"{reader.events} events instead of {chunks} chunks and {self.target.extra_events}; {reader.tail[-300:]!r}"
                )

    async def warm_up(self) -> None:
        """Run a few streams, so that nothing is measured that happens only once."""
        await self.complete(self.readers(WARM_UP_STREAMS, Plan(WARM_UP_CHUNKS)), WARM_UP_CHUNKS)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of values in any order, 0 to 100; the nearest one that occurs."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
