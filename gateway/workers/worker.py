"""One worker as the pool sees it: what it offers, how many places it has, and whether it may be given work.

A Worker is one life of one process (a restart makes a new one), or one address for good. local.py and
address.py move it through its states; dispatch.py takes and returns its places. Nothing here waits.

    state      takes work   left when
    starting   no           it described itself -> ready; it failed -> down
    ready      yes          told to go -> draining; lost or silent -> down; pool ends -> stopping
    draining   no           its streams have ended, or have run out of time -> stopping
    stopping   no           the process has exited -> down
    down       no           an address answers again -> ready; a process never comes back
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from gateway.call import ToolCall
from gateway.transport.base import Channel
from gateway.workers.description import UNKNOWN, Description
from gateway.workers.dialect import Dialect


class WorkerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    DOWN = "down"


class Worker:
    """One worker. `changed` is called after every change that can matter to who gets which worker."""

    def __init__(
        self,
        worker_id: str,
        dialect: Dialect,
        *,
        max_requests: int | None = None,
        restarts: int = 0,
        address: str = "",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = worker_id
        self.address = address
        self.restarts = restarts
        # How it is spoken to.
        self.dialect = dialect
        self.description: Description = UNKNOWN
        # Its chunks are passed on unchecked.
        self.trusts_json = False
        # Why it isn't in service; None while it is. The first line is for anyone, the others (the last lines that the
        # process printed) for the log and /readyz.
        self.failure: str | None = None
        # Cancelled tools that didn't stop in time; each keeps its place.
        self.stuck = 0
        # Threads that it may have lost with calls that were broken off (see lull.py).
        self.threads_lost = 0
        self.in_flight = 0
        # Executions started in all.
        self.served = 0
        # The dispatcher's tick of the last execution: equal workers take turns.
        self.last_used = 0
        # A message arrived since the last health check, which then needs no probe.
        self.heard = False
        # It is to be replaced: gone, or a cancelled tool didn't stop, or it is due for recycling.
        self.successor_wanted = asyncio.Event()
        # It is to take no more work and to end when its streams have: its successor is there, or a tool is stuck.
        self.told_to_go = asyncio.Event()
        # The connection broke: probe it now rather than at the next interval.
        self.probe_wanted = asyncio.Event()
        # Nothing is running on it but what is stuck.
        self.quiet = asyncio.Event()
        self.quiet.set()
        # Its first attempt to get into service is over, well or badly.
        self.settled = asyncio.Event()
        # Its process is gone for good.
        self.ended = asyncio.Event()
        self._state = WorkerState.STARTING
        self._channel: Channel | None = None
        self._max_requests = max_requests
        self._changed = changed

    def __repr__(self) -> str:
        return f"<Worker {self.id}: {self._state}, {self.in_flight}/{self.concurrency} busy>"

    @property
    def state(self) -> WorkerState:
        return self._state

    @property
    def channel(self) -> Channel:
        """The connection; there is one from `enter_service` on."""
        if self._channel is None:
            raise RuntimeError(f"worker {self.id} has no connection yet")
        return self._channel

    @property
    def came_up(self) -> bool:
        """It has been in service, and may be again."""
        return self.description is not UNKNOWN

    @property
    def concurrency(self) -> int:
        return self.description.concurrency

    @property
    def batches(self) -> bool:
        """It serves StreamTool."""
        return self.description.batches

    @property
    def free(self) -> int:
        """Places that can be given away now; 0 unless it is ready."""
        return self.concurrency - self.in_flight if self._state is WorkerState.READY else 0

    def offers(self, tool: str | None) -> bool:
        return tool is None or tool in self.description.tools

    @property
    def stall_limit_bytes(self) -> int | None:
        """None: its calls may be paused; else how much is taken that nobody reads."""
        return self.dialect.stall_limit_bytes

    @property
    def breaks_when_stalled(self) -> bool:
        """Whether its calls must always be read, and be ended in a lull alone."""
        return self.dialect.stall_limit_bytes is not None

    @property
    def tells_stops(self) -> bool:
        """Whether it can be asked if a cancelled tool has really stopped."""
        return self.dialect.tells_stops(self.description)

    def session_id_for(self, call: ToolCall) -> str:
        """The session id to send."""
        return self.dialect.session_id(call, self.description)

    # Places, taken and returned by the dispatcher.

    def take(self, tick: int) -> None:
        self.in_flight += 1
        self.served += 1
        self.last_used = tick
        self.quiet.clear()
        if self._max_requests is not None and self.served >= self._max_requests:
            self.successor_wanted.set()

    def give(self) -> None:
        self.in_flight -= 1
        self._check_quiet()

    # States, moved by local.py and address.py.

    def enter_service(self, channel: Channel, description: Description) -> None:
        self._channel = channel
        self.address = self.address or channel.address
        self._take_over(description)
        self.failure = None
        self.settled.set()
        self._move(WorkerState.READY)

    def describe(self, description: Description) -> None:
        """Take a new description: another program answers at the same address."""
        self._take_over(description)
        self._changed()

    def recover(self) -> None:
        """Take work again after `suspect`: it answered a probe."""
        if self._state is WorkerState.DOWN and self._channel is not None:
            self.failure = None
            self._move(WorkerState.READY)

    def suspect(self) -> None:
        """Take no work until a probe is answered: its connection broke under a call."""
        if self._state is WorkerState.READY:
            self.failure = f"worker {self.id}: the connection broke"
            # What it said before is no sign of life any more: else the second probe, and all until the next interval, would be left out.
            self.heard = False
            self._move(WorkerState.DOWN)
            self.probe_wanted.set()

    def mark_stuck(self) -> None:
        """Count a cancelled tool that didn't stop."""
        self.stuck += 1
        self._check_quiet()

    def unmark_stuck(self) -> None:
        self.stuck -= 1

    def lost_thread(self) -> None:
        """Count a thread that it may have lost for good, and have it replaced where it can lose no more."""
        self.threads_lost += 1
        if self.dialect.is_worn_out(self.threads_lost):
            self.replace()

    def replace(self) -> None:
        """Have it replaced: no more work, a successor now, the end when its streams have ended."""
        self.successor_wanted.set()
        self.drain()

    def drain(self) -> None:
        """Take no more work; idempotent, and harmless after the end."""
        if not self.ended.is_set() and self._state in (WorkerState.READY, WorkerState.DOWN):
            self._move(WorkerState.DRAINING)
        self.told_to_go.set()

    def stop(self) -> None:
        """Say that the process is being ended."""
        self._move(WorkerState.STOPPING)

    def leave_service(self, failure: str) -> None:
        """Be down, because of `failure`; an address may come back."""
        self.failure = failure
        self.settled.set()
        self._move(WorkerState.DOWN)

    def end(self, failure: str) -> None:
        """Be down for good: the process has exited."""
        self.ended.set()
        self.successor_wanted.set()
        self.leave_service(failure)

    def snapshot(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "id": self.id,
            "state": str(self._state),
            "in_flight": self.in_flight,
            "concurrency": self.concurrency,
            "restarts": self.restarts,
            "address": self.address,
            "stuck": self.stuck,
        }
        if self.failure is not None:
            entry["error"] = self.failure.partition("\n")[0]
        return entry

    def _take_over(self, description: Description) -> None:
        self.description = description
        self.trusts_json = self.dialect.trusts_json(description)

    def _check_quiet(self) -> None:
        if self.in_flight <= self.stuck:
            self.quiet.set()

    def _move(self, state: WorkerState) -> None:
        self._state = state
        self._changed()
