"""The way out of a running gateway, from the first signal to the last worker: who is told what, and in which order.

Owned by the Gateway (app.py). The server runs it on a signal, while requests are still answered, and the lifespan once more
at its end, where it finds everything done; under another server than ours that is the only time. Every wait is bounded by
one deadline, `drain_timeout_s` after the runs were told to end.

    step       what clients see                                                                   left when
    leaving    readyz 503, gRPC health NOT_SERVING; runs still begin, as those who route need a   `drain_delay_s` is over
               moment to hear of it
    closing    new runs: 503 with a jittered Retry-After; sockets: `goaway`; gRPC: GOAWAY;        all runs have ended, or the deadline
               what runs or waits in a queue goes on                                              has come
    ending     runs that are left end as `shutdown`, with a jittered `retry:`; readers of other   they have been told
               gateways' runs are cut, to come back there; sockets close 1012
    workers    nothing: the listeners are closed, cancelled tools stop, workers exit
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from gateway.endpoints.sockets import LAST_WORDS_S

if TYPE_CHECKING:
    from gateway.app import Gateway

_log = structlog.get_logger("gateway.drain")


class Drain:
    """The drain of one gateway. `runs` and `workers` may be called again; they go on where they were."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        # In the loop's time; None until the first step.
        self._began: float | None = None
        self._deadline = 0.0

    async def runs(self) -> None:
        """Take no new runs, tell everybody to go, and end the runs and sockets that are left at the deadline."""
        gateway, settings = self._gateway, self._gateway.settings.server
        loop = asyncio.get_running_loop()
        is_first = self._began is None
        if self._began is None:
            self._began = loop.time()
            self._deadline = self._began + settings.drain_delay_s + settings.drain_timeout_s
            gateway.hub.leaving = True
            self._say("leaving")
            if gateway.bridge is not None:
                await gateway.bridge.drain()
            await asyncio.sleep(settings.drain_delay_s)
            self._say("closing")
        gateway.sockets.go_away()
        async with asyncio.TaskGroup() as tasks:
            if gateway.bridge is not None:
                tasks.create_task(gateway.bridge.stop(self._left_s() + LAST_WORDS_S), name="gRPC drain")
            await gateway.hub.drain(self._left_s())
            if is_first:
                self._say("ending")
            if gateway.shared is not None:
                await gateway.shared.drain(self._left_s())
            await gateway.sockets.close(self._left_s())
            if gateway.bridge is not None:
                # A health check that watches never ends by itself: no more grace.
                await gateway.bridge.stop(LAST_WORDS_S)

    async def workers(self) -> None:
        """Wait, until the deadline, for what is still on the workers: cancelled tools."""
        async with asyncio.TaskGroup() as tasks:
            for pool in self._gateway.pools.values():
                tasks.create_task(pool.drain(self._left_s()), name=f"drain of pool {pool.name}")
        self._say("workers")

    def _left_s(self) -> float:
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def _say(self, step: str) -> None:
        assert self._began is not None, "a step is one of a drain that has begun"
        elapsed_s = asyncio.get_running_loop().time() - self._began
        _log.info(
            "drain", step=step, after_s=round(elapsed_s, 3), open_runs=self._gateway.hub.open_runs, sockets=len(self._gateway.sockets)
        )
