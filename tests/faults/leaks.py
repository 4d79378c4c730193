"""What a gateway holds, before and after: files and sockets, threads, processes, tasks, runs, readers, places of workers, memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from tests.e2e.harness import Served, descriptors, rss_bytes, threads, until

MEBIBYTE = 1024 * 1024
# What the interpreter's and the allocator's own moods may add, whatever was asked of it.
MEMORY_SLACK_BYTES = 24 * MEBIBYTE
# Gauges of a scrape that are 0 or constant in a gateway that nobody uses.
_GAUGES = (
    "gateway_tasks",
    "gateway_runs_open",
    "gateway_readers",
    "gateway_websockets_open",
    "gateway_pool_in_flight",
    "gateway_pool_queued",
)
_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Holdings:
    """One look at a gateway. `memory_bytes` is its resident memory; `stuck` and `workers_ready` are of all pools."""

    descriptors: int
    threads: int
    processes: int
    tasks: int
    open: int
    stuck: int
    memory_bytes: int

    @classmethod
    def of(cls, gateway: Served) -> Holdings:
        sums = dict.fromkeys(_GAUGES, 0.0)
        for name, value in _SAMPLE.findall(gateway.client.get("/metrics").text):
            if name in sums:
                sums[name] += float(value)
        return cls(
            descriptors=descriptors(gateway.pid),
            threads=threads(gateway.pid),
            processes=len(gateway.processes()),
            tasks=int(sums.pop("gateway_tasks")),
            open=int(sum(sums.values())),
            stuck=sum(pool["stuck"] for pool in gateway.pools().values()),
            memory_bytes=rss_bytes(gateway.pid),
        )

    def exceeds(self, before: Holdings, memory_slack_bytes: int) -> dict[str, tuple[int, int]]:
        """Return what there is more of than before: name -> (before, now)."""
        allowed = asdict(before) | {"memory_bytes": before.memory_bytes + memory_slack_bytes}
        return {name: (allowed[name], now) for name, now in asdict(self).items() if now > allowed[name]}


@contextlib.asynccontextmanager
async def leaves_nothing(gateway: Served, *, memory_slack_bytes: int = MEMORY_SLACK_BYTES) -> AsyncIterator[None]:
    """Fail when the gateway holds more after the block than before it, once it has had the time to let go; and wait for its workers."""
    await until(gateway.is_ready, "its workers")
    await until(gateway.is_idle, "idle workers")
    before = Holdings.of(gateway)
    yield
    left: dict[str, tuple[int, int]] = {"nothing was looked at": (0, 0)}

    def nothing_is_left() -> bool:
        nonlocal left
        left = Holdings.of(gateway).exceeds(before, memory_slack_bytes)
        return not left and gateway.is_ready()

    try:
        await until(nothing_is_left, "what was held to be let go")
    except AssertionError as exc:
        raise AssertionError(f"left behind (before, now): {left}") from exc
