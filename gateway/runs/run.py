"""One execution of a tool, from its acceptance to its end: queued, running, ended.

Opened by the hub; a LeaseHolder of its pool, then the ToolSink of its worker. It numbers what arrives in its log,
wakes its readers, and decides every ending: the tool's own, a cancel, a deadline, a lost worker, the last reader's
leaving. Nothing here awaits and a run owns no task: each step is a short synchronous change of state, called from
the event loop, so no cancellation can come in between and none can be swallowed.

    state    what it holds        what ends it
    queued   a pool's ticket      a lease (-> running) · refusal · cancel · deadline · the last reader leaves
    running  a worker's call      the call's end · cancel · deadline · the last reader leaves
    ended    its log              being forgotten by the hub
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.call import ToolCall
from gateway.errors import GatewayError
from gateway.events import ChunkAttributes, Ended, Outcome, Started, Status, Timing
from gateway.runlog.memory import MemoryLog
from gateway.runs.policy import READ_ALL, Cause, ReaderOptions, RunPolicy
from gateway.runs.subscription import Subscription
from gateway.transport.base import StreamCall
from gateway.workers.dispatch import Ticket
from gateway.workers.lease import Lease, LeaseRequest
from gateway.workers.pool import Pool
from gateway.workers.toolstream import ToolEnd

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The bounds that the settings put on every run."""

    log_bytes: int = 4 * 1024 * 1024
    log_chunks: int = 100_000
    heartbeat_s: float = 10.0


class RunOwner(Protocol):
    """Who keeps the runs: the hub."""

    def run_ended(self, run: Run) -> None:
        """The run has ended; called once."""


class Run:
    """One execution. See the module's table for its states."""

    def __init__(self, run_id: str, call: ToolCall, policy: RunPolicy, limits: RunLimits, owner: RunOwner) -> None:
        self.id = run_id
        self.call = call
        self.policy = policy
        self.log = MemoryLog(limit_bytes=limits.log_bytes, limit_chunks=limits.log_chunks)
        self.ended: Ended | None = None
        self.worker_id: str | None = None
        self._limits = limits
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._readers: list[Subscription] = []
        self._was_queued = False
        self._paused = False
        self._ticket: Ticket | None = None
        self._upstream: StreamCall | None = None
        self._accepted_at = self._loop.time()
        self._leased_at: float | None = None
        self._first_chunk_at: float | None = None
        self._last_chunk_at: float | None = None
        self._timer = self._loop.call_later(call.timeout_s, self._check_deadlines)

    @property
    def state(self) -> str:
        """`queued`, `running`, or the outcome."""
        if self.ended is not None:
            return self.ended.outcome.value
        return "queued" if self._upstream is None else "running"

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.call.tool}: {self.state}, {self.log.next - 1} chunks, {len(self._readers)} readers>"

    def start(self, pool: Pool) -> None:
        """Take a worker, or a place in the pool's queue.

        Raises:
            GatewayError: the pool refuses at once; the run is then as if it had never been.
        """
        request = LeaseRequest(self.call.session_id, self.call.affinity, self.call.tool)
        try:
            granted = pool.acquire(request, self)
        except GatewayError:
            self._timer.cancel()
            raise
        if isinstance(granted, Ticket):
            self._ticket = granted
            self._was_queued = True
        else:
            self.on_lease(granted)

    def subscribe(self, wake: Callable[[], None], options: ReaderOptions = READ_ALL, *, after: int | None = None) -> Subscription:
        """Return a new reader; `wake` is not called before that.

        `after` is the number of the last chunk it has: None for a first connection, or where the options say it.
        """
        after = options.after if after is None else after
        if options.live:
            after = self.log.next - 1
        cursor = 1 if after is None else min(after, self.log.next - 1) + 1
        started = Started(self.id, self.call.tool, self._details(), None if after is None else cursor)
        reader = Subscription(self, started, cursor, wake)
        self._readers.append(reader)
        if self._ticket is not None:
            reader.note(_queued(self._ticket.position, self._ticket.depth))
        return reader

    def cancel(self, cause: Cause) -> None:
        """End the run as cancelled, whatever it is doing; idempotent."""
        outcome = Outcome.SHUTDOWN if cause is Cause.SHUTDOWN else Outcome.CANCELLED
        problem = "shutting-down" if cause is Cause.SHUTDOWN else "cancelled"
        self._end(outcome, GatewayError(problem, f"The run ended: {cause.value}"))

    # the pool's answers: LeaseHolder

    def on_lease(self, lease: Lease) -> None:
        """A worker is ours: start the call on it."""
        self._ticket = None
        self.worker_id = lease.worker_id
        self._leased_at = self._loop.time()
        remaining_s = max(self.call.timeout_s - (self._leased_at - self._accepted_at), 0.001)
        try:
            self._upstream = lease.execute(self.call, self.id, remaining_s, self)
        except TypeError as exc:
            # Only a gRPC caller can have an argument that JSON has no word for.
            self._end(Outcome.ERROR, GatewayError("invalid-arguments", f"An argument can't be sent as JSON: {exc}"))
            return
        if self.policy.idle_timeout_s is not None:
            self._timer.cancel()
            self._check_deadlines()
        if self._was_queued:
            for reader in self._readers:
                reader.show(Status("running", {"worker": lease.worker_id}))

    def on_refused(self, error: GatewayError) -> None:
        """The queue gave up on us."""
        self._ticket = None
        self._end(Outcome.ERROR, error)

    def on_position(self, position: int, depth: int) -> None:
        """Our place in the queue changed."""
        for reader in self._readers:
            reader.show(_queued(position, depth))

    # the worker's answers: ToolSink

    def on_chunks(self, payloads: list[bytes], size_bytes: int, attributes: dict[int, ChunkAttributes] | None) -> None:
        """Number a batch, and make the worker wait where the slowest reader is too far behind."""
        if self.ended is not None:
            return
        self._last_chunk_at = self._loop.time()
        if self._first_chunk_at is None:
            self._first_chunk_at = self._last_chunk_at
        self.log.append(payloads, size_bytes, attributes)
        for reader in self._readers:
            reader.wake()
        # What nobody has taken is in the log: a short log says without looking at the readers that none lags.
        limit = self.policy.lag_bytes
        if self.log.size_bytes > limit and not self._paused and self._lag_bytes() > limit and self._upstream is not None:
            self._paused = True
            self._upstream.pause_reading()

    def on_end(self, end: ToolEnd) -> None:
        """The call has ended."""
        if end.error is not None:
            outcome = Outcome.DEADLINE if end.error.problem == "worker-timeout" else Outcome.ERROR
            self._end(outcome, end.error, end.metadata)
        elif end.cancelled:
            self._end(Outcome.CANCELLED, GatewayError("cancelled", "The worker's call was cancelled"), end.metadata)
        else:
            synthetic = {} if end.has_final else {"synthetic_final": "true"}
            self._end(Outcome.OK, None, {**end.metadata, **synthetic})

    # the readers' news: ReadableRun

    def reader_advanced(self) -> None:
        """Let the worker go on once every reader is near enough, and forget what all have read."""
        if self._paused and self._lag_bytes() <= self.policy.lag_bytes // 2 and self._upstream is not None:
            self._paused = False
            # The silence until now was ours, not the tool's.
            self._last_chunk_at = self._loop.time()
            self._upstream.resume_reading()
        readers = self._readers
        self.log.discard(readers[0].cursor if len(readers) == 1 else min(reader.cursor for reader in readers))

    def reader_left(self, subscription: Subscription) -> None:
        """Apply the disconnect policy when the last one has gone."""
        self._readers.remove(subscription)
        if self._readers:
            self.reader_advanced()
            return
        self.log.discard(self.log.next)
        if self.ended is None:
            self.cancel(Cause.DISCONNECT)

    def _lag_bytes(self) -> int:
        """How far the slowest reader is behind the worker."""
        if not self._readers:
            return 0
        return self.log.total_bytes - min(reader.taken_bytes for reader in self._readers)

    def _check_deadlines(self) -> None:
        """End the run where a deadline has passed, else look again at the next one.

        One timer a run: chunks only note when they came, they don't move it.
        """
        now = self._loop.time()
        deadline = self._accepted_at + self.call.timeout_s
        if now >= deadline:
            waited_for = "a worker" if self._upstream is None else "the tool"
            self._expire(f"{self.call.timeout_s:g} s passed, the run's time-out, waiting for {waited_for}")
            return
        idle_s = self.policy.idle_timeout_s
        if idle_s is not None and self._leased_at is not None:
            # While the worker is made to wait for a slow reader, its silence is ours.
            quiet_since = now if self._paused else (self._last_chunk_at or self._leased_at)
            if now >= quiet_since + idle_s:
                self._expire(f"{idle_s:g} s passed without a chunk, the run's idle time-out")
                return
            deadline = min(deadline, quiet_since + idle_s)
        self._timer = self._loop.call_at(deadline, self._check_deadlines)

    def _expire(self, detail: str) -> None:
        self._end(Outcome.DEADLINE, GatewayError("worker-timeout", detail))

    def _end(self, outcome: Outcome, error: GatewayError | None, metadata: Mapping[str, str] | None = None) -> None:
        if self.ended is not None:
            return
        self._timer.cancel()
        self.ended = Ended(outcome, self.log.next - 1, self._decorate(metadata or {}), self.timing(), error)
        if self._ticket is not None:
            self._ticket.cancel()
        elif self._upstream is not None:
            # Harmless when the call has ended by itself; otherwise RST_STREAM leaves with this very step.
            self._upstream.cancel()
        self._ticket = self._upstream = None
        # An ended run is known for a while; its arguments, which may be megabytes, are not needed for that.
        call = self.call
        self.call = ToolCall(call.tool, _NOTHING, call.timeout_s, call.streaming, call.session_id, call.pool)
        for reader in self._readers:
            reader.wake()
        self._owner.run_ended(self)

    def _decorate(self, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """Add what Snakepit adds to a final chunk, where the worker hasn't said it itself."""
        if self.worker_id is None or self._leased_at is None:
            return metadata
        elapsed_ms = int((self._loop.time() - self._leased_at) * 1000)
        return {"execution_time_ms": str(elapsed_ms), "tool_type": "remote", "worker_id": self.worker_id, **metadata}

    def timing(self) -> Timing:
        """Return how long it took so far."""
        return Timing(
            None if self._leased_at is None else self._since_accepted_ms(self._leased_at),
            None if self._first_chunk_at is None else self._since_accepted_ms(self._first_chunk_at),
            self._since_accepted_ms(self._loop.time()),
        )

    def _since_accepted_ms(self, moment: float) -> int:
        return int((moment - self._accepted_at) * 1000)

    def _details(self) -> dict[str, Any]:
        uri = f"/v1/runs/{self.id}"
        return {
            "on_disconnect": self.policy.on_disconnect.value,
            "timeout_ms": int(self.call.timeout_s * 1000),
            "heartbeat_ms": int(self._limits.heartbeat_s * 1000),
            "links": {"events": f"{uri}/events", "cancel": f"{uri}/cancel"},
        }


def _queued(position: int, depth: int) -> Status:
    return Status("queued", {"position": position, "depth": depth})
