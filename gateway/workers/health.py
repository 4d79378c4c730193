"""The health checks of a worker in service: is it still there, does it still answer, is it still the same one.

local.py and address.py run one `watch` for each worker. A worker that delivered something since the last check
needs no probe, so a slow answer alone, from a worker whose tool holds the interpreter lock, costs it nothing
while its streams flow. The probe is the question it was first asked, and a changed answer is taken over.
"""

from __future__ import annotations

import asyncio
import contextlib

from gateway.errors import Code
from gateway.transport.base import CallFailed
from gateway.workers.options import PoolOptions
from gateway.workers.worker import Worker, WorkerState

# Between probes while the connection is broken: three misses take about a second.
_RETRY_S = 0.3


async def watch(worker: Worker, options: PoolOptions) -> str:
    """Return when the worker has missed `health_misses` checks in a row; the text says how the last one failed."""
    misses = 0
    while True:
        await _wait(worker, _RETRY_S if misses and worker.state is WorkerState.DOWN else options.health_interval_s)
        if worker.heard and not worker.probe_wanted.is_set():
            worker.heard = False
            misses = 0
            continue
        worker.probe_wanted.clear()
        try:
            description = await worker.dialect.describe(worker.channel, options.health_timeout_s, worker.description)
        except (CallFailed, ValueError) as exc:
            if isinstance(exc, CallFailed) and exc.status.connection_lost:
                worker.suspect()
                worker.probe_wanted.clear()
            misses += 1
            if misses >= options.health_misses:
                return f"worker {worker.id} missed {misses} health checks: {reason_of(exc)}"
        else:
            misses = 0
            if description != worker.description:
                worker.describe(description)
            worker.recover()


def reason_of(exc: CallFailed | ValueError | OSError) -> str:
    """The failure of a question in words."""
    if not isinstance(exc, CallFailed):
        return str(exc)
    if exc.status.code is Code.DEADLINE_EXCEEDED:
        return "it did not answer in time"
    return exc.status.message or exc.status.code.name


async def _wait(worker: Worker, interval_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(interval_s):
            await worker.probe_wanted.wait()
