"""All executions of the worker: how many run at once, which are running, and when one has stopped.

Owned by serve.py, used by servicer.py. Each execution is a task of the worker's task group and outlives the gRPC
call that asked for it until its cleanup is done: a cancelled call ends at once, its tool only when it stops.
Executions over `concurrency` wait for a place, in order; the wait is cancelled with its call. The number of
waiting ones is bounded by the caller: the gateway leases no more than `concurrency`.
"""

from __future__ import annotations

import asyncio
import logging

from gateway.runtime.execution import Execution
from gateway.runtime.failure import Draining, Refusal
from gateway.runtime.thread import ToolThreads

logger = logging.getLogger(__name__)


class Executor:
    """Runs executions, at most `concurrency` at once.

    A tool that has not stopped `stop_timeout_s` after its cancellation is logged and counted in `stuck`; the gateway
    learns it from AwaitStop and replaces the worker.
    """

    def __init__(self, group: asyncio.TaskGroup, *, concurrency: int, stop_timeout_s: float) -> None:
        self.concurrency = concurrency
        self.stuck = 0
        self._group = group
        self._stop_timeout_s = stop_timeout_s
        self._places = asyncio.Semaphore(concurrency)
        self._threads = ToolThreads(concurrency)
        self._running: set[Execution] = set()
        self._watchdogs: dict[Execution, asyncio.TimerHandle] = {}
        self._draining = False

    def __len__(self) -> int:
        """How many run or wait for a place."""
        return len(self._running)

    def start(self, execution: Execution) -> None:
        """Run an execution as soon as there is a place.

        Raises:
            Draining: the worker is shutting down.
        """
        if self._draining:
            raise Draining("the worker is shutting down")
        self._running.add(execution)
        self._group.create_task(self._own(execution), name=f"execution {execution.tool.name} {execution.run_id}")

    async def _own(self, execution: Execution) -> None:
        await execution.run(self._places, self._threads)
        self._running.discard(execution)
        if (watchdog := self._watchdogs.pop(execution, None)) is not None:
            watchdog.cancel()

    def cancel(self, execution: Execution, reason: Refusal | None = None) -> None:
        """Ask an execution to stop, without an await. Harmless after its end."""
        execution.cancel(reason)
        if execution in self._running and execution not in self._watchdogs:
            loop = asyncio.get_running_loop()
            self._watchdogs[execution] = loop.call_later(self._stop_timeout_s, self._report, execution)

    def _report(self, execution: Execution) -> None:
        self.stuck += 1
        logger.error(
            "tool %s (run %s) has not stopped %g s after its cancellation; %d such so far in this worker",
            execution.tool.name,
            execution.run_id or "without an id",
            self._stop_timeout_s,
            self.stuck,
        )

    def cancel_all(self, reason: Refusal | None = None) -> None:
        """Ask every execution to stop."""
        for execution in tuple(self._running):
            self.cancel(execution, reason)

    async def await_stop(self, run_id: str, timeout_s: float) -> bool:
        """Return True when no execution of this run id is left, False when `timeout_s` is over first."""
        return await self._wait([execution for execution in self._running if execution.run_id == run_id], timeout_s)

    async def drain(self, timeout_s: float | None) -> bool:
        """Refuse new executions and wait for the others. False: some were still running when `timeout_s` was over."""
        self._draining = True
        self._threads.end()
        return await self._wait(list(self._running), timeout_s)

    async def _wait(self, executions: list[Execution], timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                for execution in executions:
                    await execution.stopped.wait()
        except TimeoutError:
            return False
        return True
