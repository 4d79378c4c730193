"""The pools of a running gateway: those that serve, those that are yet to, and those that only finish what they have.

Owned by the Gateway (app.py), which runs it; reload.py asks for other pools. `serving` is the one dict that the hub and the
catalogue look at, so that a change is one step for both. No stream is cut by a change: a pool that goes is asked for nothing
more, finishes what runs and waits there, and is stopped then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence

import structlog

from gateway.workers.options import PoolOptions
from gateway.workers.pool import Pool

_log = structlog.get_logger("gateway.pools")


class Pools:
    """All pools. `make` returns a pool that is not running yet; `serving` is by name, the first is the default."""

    def __init__(self, options: Sequence[PoolOptions], make: Callable[[PoolOptions], Pool]) -> None:
        self._make = make
        self.serving: dict[str, Pool] = {pool.name: make(pool) for pool in options}
        self._running: dict[Pool, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Keep all pools running until cancelled, then stop them."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for pool in self.serving.values():
                self._start(pool)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None
                for task in self._running.values():
                    task.cancel()

    async def started(self, wait_s: float) -> None:
        """Return when each pool has a worker or has failed to start one, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                for pool in list(self.serving.values()):
                    await pool.started()

    async def change(self, wanted: Sequence[PoolOptions], reconnected: Collection[str] = ()) -> None:
        """Serve by these pools, in this order.

        Pools that start processes go on with new ones, even where nothing was changed: the adapter's code may have. A pool that is new,
        or becomes of another kind or of other addresses, begins to serve when it is ready; where the latter doesn't get ready, the old
        one stays.
        `reconnected` are pools whose connections are made in another way.
        """
        new = {options.name: self._make(options) for options in wanted if self._is_new(options, reconnected)}
        for pool in new.values():
            self._start(pool)
        for pool in new.values():
            await pool.started()
        serving: dict[str, Pool] = {}
        for options in wanted:
            old, successor = self.serving.get(options.name), new.get(options.name)
            if old is not None and successor is not None and (reasons := successor.readiness()):
                _log.error("the new pool is not ready: the old one stays", pool=options.name, reasons=reasons)
                self._running[successor].cancel()
                successor = old
            if old is not None and successor is None and options.starts_processes:
                old.renew(options)
            chosen = successor or old
            assert chosen is not None, "a pool that isn't there is new"
            serving[options.name] = chosen
        gone = [pool for pool in self.serving.values() if pool not in serving.values()]
        self.serving.clear()
        self.serving.update(serving)
        if self._tasks is not None:
            for pool in gone:
                self._tasks.create_task(self._retire(pool), name=f"end of pool {pool.name}")

    def _is_new(self, options: PoolOptions, reconnected: Collection[str]) -> bool:
        """Return whether these options want a pool in place of what serves under their name, if anything does."""
        old = self.serving.get(options.name)
        if old is None or old.kind != options.kind:
            return True
        if options.starts_processes != old.options.starts_processes:
            return True
        return not options.starts_processes and (old.options != options or options.name in reconnected)

    def _start(self, pool: Pool) -> None:
        assert self._tasks is not None, "pools start while these run"
        task = self._running[pool] = self._tasks.create_task(pool.run(), name=f"pool {pool.name}")
        task.add_done_callback(lambda _: self._running.pop(pool))

    async def _retire(self, pool: Pool) -> None:
        _log.info("a pool takes no more requests", pool=pool.name)
        await pool.retired()
        self._running[pool].cancel()
        _log.info("a pool has ended", pool=pool.name)
