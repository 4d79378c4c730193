"""The right to one execution on one worker, and what a request says to get it.

The stream itself is the lease: `execute` starts it, and when the call has ended (and, after a cancel, the
tool has really stopped) the worker's place is free again. Nobody has to remember to return it; only a lease
that was never used is released by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, final

from gateway.call import Affinity, ToolCall
from gateway.errors import GatewayError
from gateway.transport.base import Metadata, StreamCall
from gateway.value import Value
from gateway.workers.toolstream import ToolSink
from gateway.workers.worker import Worker


@final
class LeaseRequest(Value):
    """What a request needs of a worker.

    `session_id` None: any worker. `affinity` None: the pool's own. `tool` None: a worker with any tools; the
    workers of one pool of addresses need not all offer the same. `worker_id`: that worker and no other.
    """

    __slots__ = ("session_id", "affinity", "tool", "worker_id")  # noqa: RUF023

    def __init__(
        self, session_id: str | None = None, affinity: Affinity | None = None, tool: str | None = None, worker_id: str | None = None
    ) -> None:
        self.session_id = session_id
        self.affinity = affinity
        self.tool = tool
        self.worker_id = worker_id


# Starts a call on a leased worker: the worker, the call, the run's id, seconds, the sink, the metadata to add, and what ends the lease.
Execute = Callable[[Worker, ToolCall, str, float, ToolSink, Metadata, Callable[[Worker, str | None], None]], StreamCall]


class LeaseHolder(Protocol):
    """Who waits for a lease. Called from the event loop; must not raise and must not block.

    Exactly one of `on_lease` and `on_refused` is called for a ticket, unless it is cancelled first.
    """

    def on_lease(self, lease: Lease) -> None:
        """Take the lease: execute on it or release it."""

    def on_refused(self, error: GatewayError) -> None:
        """Hear why there will be no lease."""

    def on_position(self, position: int, depth: int) -> None:
        """Hear the place in the queue, from 1, of `depth` waiting; at most once a second, and only when it changed."""


class Lease:
    """One execution's place on a worker."""

    __slots__ = ("_execute", "_give_back", "_used", "_worker", "pool", "worker_id")

    def __init__(self, pool: str, worker: Worker, execute: Execute, give_back: Callable[[Worker, str | None], None]) -> None:
        """`execute` starts the call. `give_back(worker, run_id)` ends the lease; a run id says that this run may not have stopped yet."""
        self.pool = pool
        self.worker_id = worker.id
        self._worker = worker
        self._execute = execute
        self._give_back = give_back
        self._used = False

    def execute(self, call: ToolCall, run_id: str, timeout_s: float, sink: ToolSink, metadata: Metadata = ()) -> StreamCall:
        """Start the call on the leased worker; `sink.on_end` is called exactly once, later.

        `timeout_s` is what is left for the execution. `metadata` is added to the call's headers (trace context).

        Raises:
            TypeError: an argument has no JSON form. The lease is released.
            GatewayError: the call can't be made. The lease is released.
            RuntimeError: the lease was used or released before.
        """
        if self._used:
            raise RuntimeError("a lease is for one execution")
        self._used = True
        try:
            return self._execute(self._worker, call, run_id, timeout_s, sink, metadata, self._give_back)
        except BaseException:
            self._give_back(self._worker, None)
            raise

    def release(self) -> None:
        """Return a lease that was not used; otherwise do nothing. Idempotent."""
        if not self._used:
            self._used = True
            self._give_back(self._worker, None)
