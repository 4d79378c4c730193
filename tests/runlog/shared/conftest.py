"""Gateways' shared logs in front of a real Valkey server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.events import Chunks, Ended, Outcome, Status
from gateway.runlog.shared.log import SharedLog
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.records import RunRecord
from tests.valkey import Valkey

TIMEOUT_S = 15.0
NUMBERS = itertools.count(1)
# Short times, so that deaths are noticed within a test's patience, yet far above the pauses of a busy machine.
QUICK: dict[str, Any] = {
    "operation_timeout_s": 1.0,
    "backoff_max_s": 0.1,
    "lease_ttl_s": 1.5,
    "lease_interval_s": 0.2,
    "sweep_interval_s": 0.2,
    "confirm_s": 0.5,
    "block_s": 0.5,
    "check_interval_s": 0.3,
}


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    valkey = Valkey()
    yield valkey
    valkey.close()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own."""
    valkey = Valkey()
    yield valkey
    valkey.close()


@dataclass
class Local:
    """A gateway's runs: what the log told them."""

    cancelled: list[str] = field(default_factory=list)
    fenced: list[str] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)

    def on_cancel(self, run_id: str) -> None:
        self.cancelled.append(run_id)

    def on_remote_readers(self, run_id: str, total: int) -> None:
        self.readers.append((run_id, total))

    def on_fenced(self, run_id: str) -> None:
        self.fenced.append(run_id)


@dataclass
class Seen:
    """A sink that keeps what it was told: payloads by number, gaps, and all events in order."""

    events: list[Any] = field(default_factory=list)
    payloads: dict[int, bytes] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    end: Ended | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_batch(self, batch: Chunks) -> None:
        assert self.end is None
        for number, payload in enumerate(batch.payloads, start=batch.first):
            assert number not in self.payloads
            self.payloads[number] = payload
        self._note(batch)

    def on_status(self, status: Status) -> None:
        self._note(status)

    def on_gap(self, first: int, last: int) -> None:
        self.gaps.append((first, last))
        self._note((first, last))

    def on_end(self, ended: Ended) -> None:
        assert self.end is None
        self.end = ended
        self._note(ended)

    def _note(self, event: Any) -> None:
        self.events.append(event)
        self.changed.set()

    async def has(self, count: int) -> None:
        """Wait until so many chunks have come."""
        await self._until(lambda: len(self.payloads) >= count)

    async def over(self) -> Ended:
        """Wait for the end."""
        await self._until(lambda: self.end is not None)
        assert self.end is not None
        return self.end

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Gateway:
    """One gateway's log with its local runs, running."""

    log: SharedLog
    local: Local
    task: asyncio.Task[None]

    async def run(self, run_id: str | None = None, **fields: Any) -> Any:
        """Register a run and return its recorder."""
        record = await self.log.register(RunRecord(run_id or new_id(), fields.pop("tool", "count"), **fields))
        return self.log.recorder(record.id)

    async def follow(self, run_id: str) -> Seen:
        seen = Seen()
        await self.log.follow(run_id, seen)
        return seen

    async def freeze(self) -> None:
        """End the tasks as a SIGKILL would: nothing is said to anybody."""
        self.task.cancel()
        await asyncio.wait([self.task])


class Gateways:
    """Makes gateways on one server; all end with the test."""

    def __init__(self, tasks: asyncio.TaskGroup, prefix: str) -> None:
        self.prefix = prefix
        self.all: list[Gateway] = []
        self._tasks = tasks

    async def __call__(self, valkey: Valkey, name: str | None = None, **options: Any) -> Gateway:
        gateway = self.unconnected(valkey.url, name, **options)
        async with asyncio.timeout(TIMEOUT_S):
            await gateway.log.connected()
        return gateway

    def unconnected(self, url: str, name: str | None = None, **options: Any) -> Gateway:
        local = Local()
        log = SharedLog(url, name or f"g{next(NUMBERS)}", local, SharedLogOptions(prefix=self.prefix, **{**QUICK, **options}))
        gateway = Gateway(log, local, self._tasks.create_task(log.run()))
        self.all.append(gateway)
        return gateway


@pytest.fixture
async def gateways() -> AsyncIterator[Gateways]:
    async with asyncio.TaskGroup() as tasks:
        made = Gateways(tasks, f"t{next(NUMBERS)}:")
        yield made
        for gateway in made.all:
            gateway.task.cancel()


def new_id() -> str:
    return f"r_{next(NUMBERS):08}"


def batch(first: int, *payloads: bytes, attributes: Any = None) -> Chunks:
    return Chunks(first, list(payloads), sum(map(len, payloads)) + 48 * len(payloads), attributes)


def ok(chunks: int) -> Ended:
    return Ended(Outcome.OK, chunks)
