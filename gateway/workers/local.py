"""Keeps one worker process of a pool alive: start, serve, replace, stop.

A slot runs for as long as its pool. Each process has one Worker and one task, and a successor may start while
its predecessor still serves:

    it died, or fell silent     the successor starts at once, then after the back-off
    it is due (age, requests,   the successor starts first; when it serves, the old one drains, and no stream is cut
    or new options or code)
    a cancelled tool is stuck   the old one drains at once, for drain_timeout_s at most; the successor starts meanwhile

The slots of a pool renew their processes one after the other, and a slot begins only when the last process that
it renewed has drained: endless streams can't pile up processes, each slot has one old one at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from gateway.transport.base import CallFailed, Channel
from gateway.workers.backoff import HEALTHY_S, Backoff
from gateway.workers.description import Description
from gateway.workers.dialect import Dialect, Speak, Unusable
from gateway.workers.health import reason_of, watch
from gateway.workers.launcher import RunDirectory, StartFailed, WorkerProcess
from gateway.workers.options import PoolOptions
from gateway.workers.worker import Worker, WorkerState

log = structlog.get_logger("gateway.worker")

ChannelFactory = Callable[[str], Channel]
_RETRY_S = 0.05


class LocalSlot:
    """One place for a worker process. `workers` are its living processes, the newest last, or the one that died last."""

    def __init__(
        self,
        worker_id: str,
        options: PoolOptions,
        open_channel: ChannelFactory,
        speak: Speak,
        directory: RunDirectory,
        surge: asyncio.Lock,
        changed: Callable[[], None],
    ) -> None:
        """`surge` is shared by the slots of a pool: its holder may have a process more. `changed`: see Worker."""
        self.worker_id = worker_id
        self._options = options
        self._open_channel = open_channel
        self._speak = speak
        self._directory = directory
        self._surge = surge
        self._changed = changed
        self._restarts = 0
        # A back-off is not waited for any more: there is something new to try, or nothing is wanted.
        self._hurry = asyncio.Event()
        # Whether it starts no process any more.
        self.retired = False
        self.workers = [self._new_worker()]

    def renew(self, options: PoolOptions) -> list[Worker]:
        """Have the process replaced by one with these options, as one that is due; return those in service, one at most."""
        self._options = options
        self._hurry.set()
        self.workers[-1].successor_wanted.set()
        return [worker for worker in self.workers if worker.state is WorkerState.READY]

    def retire(self) -> None:
        """Start no process any more, and end those that are there when their streams have; `run` returns then."""
        self.retired = True
        self._hurry.set()
        for worker in self.workers:
            worker.replace()

    async def run(self) -> None:
        """Keep a process in service until cancelled, then stop what runs; or until the slot was retired and its streams have ended."""
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        worker, predecessor = self.workers[0], None
        async with asyncio.TaskGroup() as lives:
            while True:
                due = predecessor is not None and predecessor.state is WorkerState.READY
                async with self._surge if due else contextlib.nullcontext():
                    lives.create_task(self._live(worker))
                    await worker.settled.wait()
                if self.retired:
                    worker.drain()
                    return
                if worker.came_up:
                    if predecessor is not None:
                        predecessor.drain()
                    since = loop.time()
                    await worker.successor_wanted.wait()
                    for old in self.workers[:-1]:
                        if worker.state is WorkerState.READY:
                            await _first(old.ended.wait(), worker.ended.wait())
                    if loop.time() - since >= HEALTHY_S:
                        backoff.reset()
                    predecessor = worker
                if worker.state is not WorkerState.READY:  # a due one still serves, and that is no failure
                    await self._back_off(backoff.next_s())
                if self.retired:
                    return
                self._restarts += 1
                self._hurry.clear()
                worker = self._new_worker()
                self.workers = [*(old for old in self.workers if not old.ended.is_set()), worker]
                self._changed()

    async def _back_off(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._hurry.wait()

    def _new_worker(self) -> Worker:
        limit = self._options.max_requests
        return Worker(
            self.worker_id,
            self._speak(self._options, self.worker_id),
            max_requests=None if limit is None else max(1, round(limit * _jitter())),
            restarts=self._restarts,
            changed=self._changed,
        )

    async def _live(self, worker: Worker) -> None:
        """One process from exec to exit. Raises nothing but cancellation: what went wrong is the worker's `failure`."""
        ending = f"worker {worker.id} was stopped"
        try:
            ending = await self._run_process(worker)
        except Exception as exc:
            log.exception("worker supervision failed", worker=worker.id)
            ending = f"worker {worker.id} could not be supervised: {exc!r}"
        finally:
            if len(self.workers) > 1:
                self.workers.remove(worker)
            worker.dialect.close()
            worker.end(ending)
        say = log.info if worker.told_to_go.is_set() and not worker.stuck else log.warning
        say("worker down", worker=worker.id, reason=ending)

    async def _run_process(self, worker: Worker) -> str:
        """Return why the process has ended."""
        process = WorkerProcess(worker.id, self._options, self._directory.new_name(), worker.dialect.program())
        channel: Channel | None = None
        async with asyncio.TaskGroup() as tasks:
            try:
                await process.spawn()
                tasks.create_task(process.watch())
                channel, description = await self._connect(process, worker.dialect)
                worker.enter_service(channel, description)
                log.info("worker ready", worker=worker.id, pid=process.pid, address=worker.address)
                ending = await self._serve(worker, process)
            except StartFailed as exc:
                ending = str(exc)
            finally:
                worker.stop()
                try:
                    if process.exited.is_set() and channel is not None:
                        # First of all: its streams end now, not when the last output has been read.
                        await channel.aclose()
                        channel = None
                    await process.stop()
                finally:
                    if channel is not None:
                        await channel.aclose()
        return ending or process.epitaph()

    async def _connect(self, process: WorkerProcess, dialect: Dialect) -> tuple[Channel, Description]:
        """Wait for the ready file, then for the first answer.

        Raises:
            StartFailed: one of them did not come.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.start_timeout_s
        channel = self._open_channel(await process.ready(self._options.start_timeout_s))
        try:
            while True:
                try:
                    return channel, await dialect.describe(channel, max(deadline - loop.time(), 0.1))
                except (CallFailed, ValueError) as exc:
                    if isinstance(exc, Unusable):
                        raise StartFailed(process.with_tail(f"worker {self.worker_id} can't be used: {exc}")) from exc
                    if loop.time() > deadline or process.exited.is_set():
                        raise StartFailed(process.with_tail(f"worker {self.worker_id} does not answer: {reason_of(exc)}")) from exc
                await asyncio.sleep(_RETRY_S)
        except BaseException:
            await channel.aclose()
            raise

    async def _serve(self, worker: Worker, process: WorkerProcess) -> str:
        """Return why the worker has to end: it fell silent, or it was told to go and has drained; "" when it has exited."""
        ttl_s = self._options.ttl_s
        age = None
        if ttl_s is not None:
            age = asyncio.get_running_loop().call_later(ttl_s * _jitter(), worker.successor_wanted.set)
        try:
            return await _first(process.watch(), watch(worker, self._options), self._drained(worker)) or ""
        finally:
            if age is not None:
                age.cancel()

    async def _drained(self, worker: Worker) -> str:
        """Return when the worker was told to go and its streams have ended, or have had their time because a tool is stuck."""
        await worker.told_to_go.wait()
        if not worker.stuck:
            await worker.quiet.wait()
            if worker.threads_lost:
                return f"worker {worker.id} was replaced: {worker.threads_lost} calls that were broken off may each have cost it a thread"
            return f"worker {worker.id} was recycled"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain_timeout_s):
                await worker.quiet.wait()
        return f"worker {worker.id} was replaced: a cancelled tool did not stop in {self._options.stop_timeout_s:g} s"


async def replaced(worker: Worker) -> None:
    """Return when a worker takes no more requests: its successor serves, or it has ended."""
    await _first(worker.told_to_go.wait(), worker.ended.wait())


async def _first(*contenders: Coroutine[Any, Any, Any]) -> Any:
    """Run them together and return the result of the first to end, in their order where several have; the others are cancelled."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(contender) for contender in contenders]
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in running:
            task.cancel()
    return next(task for task in running if task in done).result()


def _jitter() -> float:
    """So that the workers of a pool, started together, are not due together."""
    return random.uniform(0.9, 1.0)
