"""Who gets which worker, and who waits: the state of a pool without any I/O.

The pool's slots put workers in and take them out, leases are given here and come back here. Every method is
synchronous and leaves the pool settled: nobody waits while a worker that would take them is free. Therefore a
newcomer may take what is free without looking at the queue; it can only overtake those who insist on a worker
that is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from gateway.errors import GatewayError
from gateway.workers.affinity import Sessions, choose
from gateway.workers.lease import Execute, Lease, LeaseHolder, LeaseRequest
from gateway.workers.options import PoolOptions
from gateway.workers.toolstream import execute_tool
from gateway.workers.worker import Worker, WorkerState

log = structlog.get_logger("gateway.pool")

POSITION_INTERVAL_S = 1.0


class Timer(Protocol):
    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """What is used of an event loop; tests turn the clock by hand."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer: ...


class Ticket:
    """A place in the queue. `position` counts from 1, as of the last time it was told; `depth` is how many wait now."""

    __slots__ = ("_dispatcher", "_holder", "_request", "_timer", "position")

    def __init__(self, dispatcher: Dispatcher, request: LeaseRequest, holder: LeaseHolder, position: int) -> None:
        self.position = position
        self._dispatcher = dispatcher
        self._request = request
        self._holder = holder
        self._timer: Timer | None = None

    @property
    def depth(self) -> int:
        return self._dispatcher.queued

    def cancel(self) -> None:
        """Leave the queue; the holder hears nothing more. Idempotent, and harmless after a grant or a refusal."""
        self._dispatcher._leave(self)


class Dispatcher:
    """The workers of one pool and the queue in front of them.

    The queue is FIFO and holds `queue_limit` requests; one more is refused `pool-saturated`.
    """

    def __init__(
        self,
        options: PoolOptions,
        scheduler: Scheduler | None = None,
        unsettled: Callable[[Worker, str], bool] = lambda worker, run_id: False,
        execute: Execute = execute_tool,
    ) -> None:
        """`scheduler` None: the running event loop. `execute` starts a call on a worker.

        `unsettled(worker, run_id)` is asked when a run ended that may not have stopped on the worker; True: it
        sees to that and calls `free` itself.
        """
        self.workers: list[Worker] = []
        self.sessions = Sessions()
        self._options = options
        self._scheduler = scheduler
        self._unsettled = unsettled
        self._execute = execute
        # In order of arrival; a dict, so that leaving from the middle costs nothing.
        self._queue: dict[Ticket, None] = {}
        # Nobody waits.
        self.unqueued = asyncio.Event()
        self.unqueued.set()
        self._positions: Timer | None = None
        self._tick = 0
        self._granting = False
        self._grant_again = False
        self._closed: GatewayError | None = None

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self.workers)

    def acquire(self, request: LeaseRequest, holder: LeaseHolder) -> Lease | Ticket:
        """Return a lease where a worker is free, else a place in the queue.

        Raises:
            GatewayError: `pool-saturated`, `worker-busy`, `session-worker-unavailable`, or what `close` was given.
        """
        if self._closed is not None:
            raise self._closed
        worker = self._choose(request)
        if worker is not None:
            return self._grant(request, worker)
        options = self._options
        if len(self._queue) >= options.queue_limit:
            detail = f"pool {options.name}: all workers are busy and {len(self._queue)} requests wait already"
            raise GatewayError("pool-saturated", detail, retry_after_s=min(max(1.0, options.queue_timeout_s / 2), 30.0))
        ticket = Ticket(self, request, holder, len(self._queue) + 1)
        self._queue[ticket] = None
        self.unqueued.clear()
        ticket._timer = self._loop.call_later(options.queue_timeout_s, self._time_out, ticket)
        if self._positions is None:
            self._positions = self._loop.call_later(POSITION_INTERVAL_S, self._tell_positions)
        return ticket

    def change(self, options: PoolOptions) -> None:
        """Go on with other options; who waits already keeps their place and their time."""
        self._options = options

    def workers_changed(self) -> None:
        """Look again at everyone who waits: a worker came, went or changed its state."""
        for ticket in list(self._queue):
            try:
                self._choose(ticket._request)
            except GatewayError as error:  # who insists on a worker that has gone
                if ticket in self._queue:
                    self._refuse(ticket, error)
        self.serve_queue()

    def serve_queue(self) -> None:
        """Give free workers to those who wait, in order."""
        if self._granting:  # from a holder's on_lease: the loop below goes round once more
            self._grant_again = True
            return
        self._granting = True
        try:
            self._grant_again = True
            while self._grant_again:
                self._grant_again = False
                for ticket in list(self._queue):
                    if not any(worker.free > 0 for worker in self.workers):
                        return
                    if ticket in self._queue:
                        self._serve(ticket)
        finally:
            self._granting = False

    def give_back(self, worker: Worker, run_id: str | None) -> None:
        """End a lease. With a run id its execution may not have stopped, and the place stays taken until it has."""
        if run_id is None or not self._unsettled(worker, run_id):
            self.free(worker)

    def free(self, worker: Worker) -> None:
        worker.give()
        self.serve_queue()

    def close(self, error: GatewayError) -> None:
        """Refuse everyone who waits and everyone to come with `error`."""
        self._closed = error
        for ticket in list(self._queue):
            self._refuse(ticket, error)

    @property
    def _loop(self) -> Scheduler:
        if self._scheduler is None:
            self._scheduler = asyncio.get_running_loop()
        return self._scheduler

    def _choose(self, request: LeaseRequest) -> Worker | None:
        home = self.sessions.home(request.session_id)
        return choose(self.workers, request.tool, request.affinity or self._options.affinity, home, request.worker_id)

    def _grant(self, request: LeaseRequest, worker: Worker) -> Lease:
        self._tick += 1
        worker.take(self._tick)
        self.sessions.remember(request.session_id, worker)
        return Lease(self._options.name, worker, self._execute, self.give_back)

    def _serve(self, ticket: Ticket) -> None:
        try:
            worker = self._choose(ticket._request)
        except GatewayError as error:
            self._refuse(ticket, error)
            return
        if worker is not None:
            self._leave(ticket)
            lease = self._grant(ticket._request, worker)
            if not _told(ticket._holder.on_lease, lease):
                lease.release()

    def _refuse(self, ticket: Ticket, error: GatewayError) -> None:
        self._leave(ticket)
        _told(ticket._holder.on_refused, error)

    def _leave(self, ticket: Ticket) -> None:
        if ticket not in self._queue:
            return
        del self._queue[ticket]
        if ticket._timer is not None:
            ticket._timer.cancel()
        if not self._queue:
            self.unqueued.set()
            if self._positions is not None:
                self._positions.cancel()
                self._positions = None

    def _time_out(self, ticket: Ticket) -> None:
        if ticket not in self._queue:
            return
        waited = f"pool {self._options.name}: no worker became free in {self._options.queue_timeout_s:g} s"
        if any(worker.state is WorkerState.READY for worker in self.workers):
            error = GatewayError("queue-timeout", waited, retry_after_s=1)
        else:
            reasons = list(dict.fromkeys(worker.failure.partition("\n")[0] for worker in self.workers if worker.failure))
            detail = "; ".join([f"pool {self._options.name} has no worker in service", *reasons])
            error = GatewayError("no-workers-available", detail, retry_after_s=5)
        self._refuse(ticket, error)

    def _tell_positions(self) -> None:
        self._positions = self._loop.call_later(POSITION_INTERVAL_S, self._tell_positions)
        for position, ticket in enumerate(list(self._queue), start=1):
            if ticket.position != position and ticket in self._queue:
                ticket.position = position
                _told(ticket._holder.on_position, position, len(self._queue))


def _told(callback: Callable[..., None], *news: Any) -> bool:
    """Tell a holder; False where that raised. One broken holder must not end the pool, whose tasks call this."""
    try:
        callback(*news)
    except Exception:
        log.exception("a lease holder failed")
        return False
    return True
