"""Keeps one worker that somebody else runs in service: dial, ask, check, dial again.

The Worker is the same for good: whether the program behind the address was restarted can't be seen from here,
only that it is gone for a while. While it is, the pool's other workers get the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from gateway.transport.base import CallFailed, Channel
from gateway.workers.backoff import HEALTHY_S, Backoff
from gateway.workers.dialect import Speak
from gateway.workers.health import reason_of, watch
from gateway.workers.options import PoolOptions
from gateway.workers.worker import Worker

log = structlog.get_logger("gateway.worker")


class AddressSlot:
    """One address of a pool. `workers` holds its one Worker."""

    def __init__(
        self,
        worker_id: str,
        address: str,
        options: PoolOptions,
        open_channel: Callable[[str], Channel],
        speak: Speak,
        changed: Callable[[], None],
    ) -> None:
        self._address = address
        self._options = options
        self._open_channel = open_channel
        self._worker = Worker(worker_id, speak(options, worker_id), address=address, changed=changed)
        self.workers = [self._worker]

    async def run(self) -> None:
        """Keep the address in service until cancelled; then close the connection."""
        worker, loop = self._worker, asyncio.get_running_loop()
        backoff = Backoff()
        try:
            while True:
                since = loop.time()
                reason = await self._serve()
                if worker.failure != reason:
                    log.warning("worker down", worker=worker.id, address=self._address, reason=reason)
                worker.leave_service(reason)
                if loop.time() - since >= HEALTHY_S:
                    backoff.reset()
                await asyncio.sleep(backoff.next_s())
        finally:
            worker.dialect.close()

    async def _serve(self) -> str:
        """Return why the worker could not be brought into service, or fell out of it."""
        worker = self._worker
        channel: Channel | None = None
        try:
            channel = self._open_channel(self._address)
            description = await worker.dialect.describe(channel, self._options.start_timeout_s)
            if worker.came_up:
                worker.restarts += 1
            async with asyncio.TaskGroup() as tasks:
                worker.dialect.attend(channel, tasks)
                try:
                    worker.enter_service(channel, description)
                    log.info("worker ready", worker=worker.id, address=self._address)
                    return await watch(worker, self._options)
                finally:
                    # No more calls: what waits for a session ends now.
                    worker.suspect()
                    worker.dialect.detach()
        except (CallFailed, ValueError, OSError) as exc:
            # OSError: of a certificate's file, which is read anew for each channel.
            return f"worker {worker.id} at {self._address}: {reason_of(exc)}"
        except asyncio.CancelledError:
            worker.stop()
            raise
        finally:
            if channel is not None:
                try:
                    await worker.dialect.leave(channel)
                finally:
                    await channel.aclose()
