"""A named set of workers: the one object that runs/ and the composition root hold.

`acquire` is synchronous and belongs to dispatch.py; `run` owns every task of the pool, which are one slot for
each worker (local.py or address.py) and one short task for each cancelled execution that is awaited. Ending
`run` ends the workers; nothing of a pool is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from gateway.call import Affinity
from gateway.errors import GatewayError
from gateway.telemetry.tally import OTHER, STOP_BOUNDS_S, STOP_CAUSES, Histogram
from gateway.workers.address import AddressSlot
from gateway.workers.bridgestream import execute_bridged
from gateway.workers.description import Tool, await_stop
from gateway.workers.dialect import Speak, WorkerDialect
from gateway.workers.dispatch import Dispatcher, Scheduler, Ticket
from gateway.workers.launcher import RunDirectory
from gateway.workers.lease import Execute, Lease, LeaseHolder, LeaseRequest
from gateway.workers.local import ChannelFactory, LocalSlot
from gateway.workers.options import PoolOptions
from gateway.workers.toolstream import execute_tool
from gateway.workers.worker import Worker, WorkerState

log = structlog.get_logger("gateway.pool")


class Pool:
    """One pool. Its workers live while `run` runs; leases may be asked for before, and wait."""

    def __init__(
        self,
        options: PoolOptions,
        open_channel: ChannelFactory,
        scheduler: Scheduler | None = None,
        *,
        speak: Speak = WorkerDialect,
        execute: Execute | None = None,
    ) -> None:
        """`open_channel(address)` connects to a worker, `speak` says how it is spoken to, `execute` starts a call on it; None: a tool's.

        `scheduler` None: the running event loop.
        """
        self.name = options.name
        self.kind = options.kind
        self._options = options
        execute = execute or (execute_bridged if options.kind == "bridge" else execute_tool)
        self._dispatcher = Dispatcher(options, scheduler, self._unsettled, execute)
        self._directory = RunDirectory()
        self._tools: dict[str, Tool] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._started = asyncio.Event()
        # Cancelled tools that did not stop in time, since the pool began.
        self._stuck = 0
        # Seconds from the end of a call that was cancelled, or broke off, to the worker's word that its tool has stopped; by why that was.
        self.stops = {cause: Histogram(STOP_BOUNDS_S) for cause in STOP_CAUSES}
        # Says why a run's call was ended, one of STOP_CAUSES; set by who knows runs.
        self.cause_of: Callable[[str], str] = lambda run_id: OTHER
        self._open_channel = open_channel
        self._speak = speak
        self._surge = asyncio.Lock()
        self._slots: list[LocalSlot | AddressSlot] = []
        if options.starts_processes:
            self._grow()
        else:
            self._slots = [
                AddressSlot(f"{self.name}-{number}", address, options, open_channel, speak, self._changed)
                for number, address in enumerate(options.addresses, start=1)
            ]
        self._dispatcher.workers = self._workers()

    def __repr__(self) -> str:
        workers = self._dispatcher.workers
        ready = [worker for worker in workers if worker.state is WorkerState.READY]
        others = Counter(str(worker.state) for worker in workers if worker.state is not WorkerState.READY)
        busy = f"{sum(worker.in_flight for worker in ready)}/{sum(worker.concurrency for worker in ready)} busy"
        parts = [busy, f"{self._dispatcher.queued} queued", *(f"{count} {state}" for state, count in others.items())]
        return f"<Pool {self.name}: {', '.join(parts)}>"

    @property
    def tools(self) -> Mapping[str, Tool]:
        """What the workers offer, as of the last time each was asked; empty until the first has answered."""
        return self._tools

    def acquire(self, request: LeaseRequest, holder: LeaseHolder) -> Lease | Ticket:
        """Return a lease where a worker is free, else a place in the queue; `holder` hears what becomes of that.

        Raises:
            GatewayError: `pool-saturated`, `worker-busy`, `session-worker-unavailable`, or `shutting-down`.
                The holder may hear the last two, `queue-timeout` and `no-workers-available` later.
        """
        return self._dispatcher.acquire(request, holder)

    @property
    def options(self) -> PoolOptions:
        """What it was told last."""
        return self._options

    @property
    def affinity(self) -> Affinity:
        """What a session's tie is worth where a request says nothing."""
        return self._options.affinity

    @property
    def idle_timeout_s(self) -> float | None:
        """The longest silence of a streaming call that names no limit of its own."""
        return self._options.idle_timeout_s

    @property
    def silence(self) -> str:
        """What a silence of its workers may mean, in words for who has waited in vain; empty: nothing in particular."""
        return self._slots[0].workers[0].dialect.silence if self._slots else ""

    def tie_session(self, session_id: str, worker_id: str) -> None:
        """Tie a session to a worker that it is said to have; a worker that isn't here ties nothing, nor does one where the session
        has a worker: that may be a process before this one of the same name, which strict affinity must not take for it."""
        if self._dispatcher.sessions.home(session_id) is not None:
            return
        for worker in self._dispatcher.workers:
            if worker.id == worker_id:
                self._dispatcher.sessions.remember(session_id, worker)

    def forget_session(self, session_id: str) -> None:
        """Untie a session from its worker: it is over."""
        self._dispatcher.sessions.forget(session_id)
        for worker in self._workers():
            worker.dialect.forget_session(session_id)

    async def run(self) -> None:
        """Keep the workers alive until cancelled, then stop them; every lease and queued request ends with that."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for slot in self._slots:
                    tasks.create_task(self._keep(slot))
                try:
                    await asyncio.get_running_loop().create_future()  # for ever: the slots never end by themselves
                finally:
                    self._tasks = None
                    self._dispatcher.close(self._shutting_down())
        finally:
            self._directory.remove()

    def renew(self, options: PoolOptions) -> list[Worker]:
        """Go on with other options, or with new processes of the same ones; return the workers in service that are replaced.

        For a pool that runs and starts its own processes. Each worker's successor starts first, one after the other, and the old one
        goes when its streams have ended; where a successor does not come up, the old one stays and it is tried again. Slots beyond
        `size` end with their streams.
        """
        self._options = options
        self._dispatcher.change(options)
        local = [slot for slot in self._slots if isinstance(slot, LocalSlot) and not slot.retired]
        for slot in local[options.size :]:
            slot.retire()
        replaced = [worker for slot in local[: options.size] for worker in slot.renew(options)]
        for slot in self._grow():
            if self._tasks is not None:
                self._tasks.create_task(self._keep(slot))
        self._changed()
        return replaced

    def _grow(self) -> list[LocalSlot]:
        """Add the slots that a pool of processes lacks, and return them."""
        options = self._options
        there = [slot for slot in self._slots if isinstance(slot, LocalSlot)]
        taken = {slot.worker_id for slot in there}
        names = (name for number in itertools.count(1) if (name := f"{self.name}-{number}") not in taken)
        lacking = options.size - sum(not slot.retired for slot in there)
        added = [
            LocalSlot(name, options, self._open_channel, self._speak, self._directory, self._surge, self._changed)
            for name in itertools.islice(names, max(0, lacking))
        ]
        self._slots += added
        return added

    async def _keep(self, slot: LocalSlot | AddressSlot) -> None:
        """Run a slot; one that returns was retired."""
        await slot.run()
        self._slots.remove(slot)
        self._changed()

    async def retired(self) -> None:
        """Return when nothing runs here and nobody waits; for a pool that nobody can ask for a lease any more."""
        unqueued = self._dispatcher.unqueued
        while not unqueued.is_set() or any(not worker.quiet.is_set() for worker in self._workers()):
            await unqueued.wait()
            for worker in self._workers():
                await worker.quiet.wait()

    async def started(self) -> None:
        """Return when a worker is ready, or when every worker's first start has failed; `readiness` says which."""
        await self._started.wait()

    async def drain(self, deadline_s: float) -> None:
        """Take no more requests, refuse those who wait, and return when nothing runs any more, or after `deadline_s`."""
        self._dispatcher.close(self._shutting_down())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                for worker in self._workers():
                    await worker.quiet.wait()

    def readiness(self) -> list[str]:
        """Return why no worker of this pool can take a request, one sentence each; empty while one can, busy or not."""
        workers = self._dispatcher.workers
        if any(worker.state is WorkerState.READY for worker in workers):
            return []
        reasons = dict.fromkeys(worker.failure or f"worker {worker.id} is {worker.state}" for worker in workers)
        return [f"pool {self.name}: {reason}" for reason in reasons]

    def snapshot(self) -> dict[str, Any]:
        """Return this pool's entry of GET /v1/pools."""
        return {
            "name": self.name,
            "kind": self.kind,
            "queued": self._dispatcher.queued,
            "in_flight": self._dispatcher.in_flight,
            "stuck": self._stuck,
            "workers": [worker.snapshot() for worker in self._dispatcher.workers],
        }

    def _workers(self) -> list[Worker]:
        return [worker for slot in self._slots for worker in slot.workers]

    def _changed(self) -> None:
        """A worker came, went, or changed its state."""
        workers = self._dispatcher.workers = self._workers()
        if known := [worker.description.tools for worker in workers if worker.came_up]:
            # A restarting worker's tools stay, so that requests for them wait instead of being unknown.
            self._tools = {name: tool for tools in known for name, tool in tools.items()}
        if any(worker.state is WorkerState.READY for worker in workers) or all(worker.settled.is_set() for worker in workers):
            self._started.set()
        self._dispatcher.workers_changed()

    def _unsettled(self, worker: Worker, run_id: str) -> bool:
        """See to a run that may not have stopped; False where nobody can say whether it has."""
        if self._tasks is None or worker.ended.is_set() or not worker.tells_stops:
            return False
        self._tasks.create_task(self._settle(worker, run_id))
        return True

    async def _settle(self, worker: Worker, run_id: str) -> None:
        """Free the worker's place when the run has stopped; have the worker replaced when it doesn't."""
        timeout_s = self._options.stop_timeout_s
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not await await_stop(worker.channel, run_id, timeout_s):
            self._stuck += 1
            worker.mark_stuck()
            log.error("cancelled tool did not stop", worker=worker.id, run=run_id, waited_s=timeout_s)
            if self._options.starts_processes:
                worker.replace()  # the place goes with the process
                return
            while not await await_stop(worker.channel, run_id, timeout_s):
                pass  # nobody here can end that process: the place stays taken
            worker.unmark_stuck()
        self.stops[self.cause_of(run_id)].observe(loop.time() - began)
        self._dispatcher.free(worker)

    def _shutting_down(self) -> GatewayError:
        return GatewayError("shutting-down", f"pool {self.name} takes no more requests: the gateway is shutting down", retry_after_s=5)
