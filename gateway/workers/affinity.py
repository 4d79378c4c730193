"""Which worker a request gets: one synchronous function, and the memory of which worker a session had.

`choose` is the whole policy. It sees the workers as they are now, takes nothing and waits for nothing:
dispatch.py acts on its answer. What a strict affinity protects is state inside one process, so a worker that
is draining, down or restarted counts as gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from gateway.call import Affinity
from gateway.errors import GatewayError
from gateway.workers.worker import Worker, WorkerState

# Sessions remembered by a pool; the one unused for longest is forgotten first, and may go anywhere afterwards.
SESSION_LIMIT = 10_000


def choose(
    workers: Iterable[Worker], tool: str | None, affinity: Affinity, home: Worker | None, worker_id: str | None = None
) -> Worker | None:
    """Return the worker to use now, or None: wait. `home` is the session's worker, None without one.

    With a `worker_id` it is a worker of that id or none, whatever the session's is.
    A session goes home where it can. Any other request goes to the worker with the fewest executions in
    flight, of equals to the one that has rested longest.

    Raises:
        GatewayError: `worker-busy` (strict_fail_fast), or `session-worker-unavailable` (either strict mode).
    """
    if home is not None and worker_id is None:
        if home.free > 0 and home.offers(tool):
            return home
        if affinity is not Affinity.HINT:
            if home.state is not WorkerState.READY:
                raise GatewayError("session-worker-unavailable", f"worker {home.id}, which holds the session, is {home.state}")
            if affinity is Affinity.STRICT_FAIL_FAST:
                raise GatewayError("worker-busy", f"worker {home.id}, which holds the session, is busy", retry_after_s=1)
            return None
    best: Worker | None = None
    for worker in workers:
        if worker.free <= 0 or not worker.offers(tool) or (worker_id is not None and worker.id != worker_id):
            continue
        if best is None or worker.in_flight < best.in_flight or (worker.in_flight == best.in_flight and worker.last_used < best.last_used):
            best = worker
    return best


class Sessions:
    """Session id -> the worker it last ran on. Bounded by SESSION_LIMIT."""

    def __init__(self, limit: int = SESSION_LIMIT) -> None:
        self._workers: OrderedDict[str, Worker] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._workers)

    def home(self, session_id: str | None) -> Worker | None:
        return None if session_id is None else self._workers.get(session_id)

    def remember(self, session_id: str | None, worker: Worker) -> None:
        if session_id is None:
            return
        self._workers[session_id] = worker
        self._workers.move_to_end(session_id)
        if len(self._workers) > self._limit:
            self._workers.popitem(last=False)

    def forget(self, session_id: str) -> None:
        self._workers.pop(session_id, None)
