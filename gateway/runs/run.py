"""One execution of a tool, from its acceptance to its end: queued, running, ended.

Opened by the hub; a LeaseHolder of its pool, then the ToolSink of its worker. It numbers what arrives in its log,
wakes its readers, and decides every ending: the tool's own, a cancel, a deadline, a lost worker, the last subscriber's
leaving. Nothing here awaits and a run owns no task: each step is a short synchronous change of state, called from
the event loop, so no cancellation can come in between and none can be swallowed.

    state    what it holds        what ends it
    queued   a pool's ticket      a lease (-> running) · refusal · cancel · deadline · the last subscriber leaves
    running  a worker's call      the call's end · cancel · deadline · the last subscriber leaves
    ended    its log              being forgotten by the hub

What "the last subscriber leaves" means is the policy's (`OnDisconnect`); subscribers of other gateways count, observers don't.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, final

from gateway import timers
from gateway.call import ToolCall, is_rpc
from gateway.caller import Caller
from gateway.errors import GatewayError
from gateway.events import ChunkAttributes, Ended, Marks, Outcome, Status, Timing
from gateway.runlog.base import RunRecorder
from gateway.runlog.budget import MemoryBudget
from gateway.runlog.memory import MemoryLog, Place
from gateway.runs.policy import READ_ALL, Cause, Leaving, ReaderOptions, RunLimits, RunPolicy
from gateway.runs.source import RunSource, start_details
from gateway.runs.stopwatch import Stopwatch
from gateway.runs.subscription import Subscription
from gateway.telemetry.tally import RunTally, ToolTally
from gateway.transport.base import StreamCall
from gateway.workers.dispatch import Ticket
from gateway.workers.lease import Lease, LeaseRequest
from gateway.workers.pool import Pool
from gateway.workers.toolstream import ToolEnd, ToolSink

if TYPE_CHECKING:
    from gateway.runs.hub import Hub


# Causes that are no cancel.
_ENDINGS = {Cause.SHUTDOWN: (Outcome.SHUTDOWN, "shutting-down"), Cause.FENCED: (Outcome.ERROR, "owner-lost")}


@final
class Run(RunSource, ToolSink):
    """One execution. See the module's table for its states."""

    __slots__ = (
        "_counts",
        "_grace",
        "_kept",
        "_limits",
        "_owner",
        "_paused",
        "_remote",
        "_ticket",
        "_timer",
        "_timers",
        "_upstream",
        "_was_queued",
        "_watch",
        "call",
        "cause",
        "policy",
        "recorder",
        "size_bytes",
    )

    def __init__(
        self,
        run_id: str,
        call: ToolCall,
        policy: RunPolicy,
        limits: RunLimits,
        owner: Hub,
        budget: MemoryBudget | None = None,
        *,
        is_claimed: bool = False,
        recorder: RunRecorder | None = None,
        tally: RunTally | None = None,
    ) -> None:
        """`owner` keeps the runs, and is told once when this one has ended. `budget` is what all runs' logs share; None: one of its own.

        `is_claimed`: somebody has an idempotency key to the run.

        `recorder` tells other gateways what happens; None: there are none. `tally` counts it for the operator; None: nobody does.
        """
        is_plain = policy.on_disconnect.kind is Leaving.CANCEL and not is_claimed
        log_bytes = min(limits.plain_log_bytes, limits.log_bytes) if is_plain else limits.log_bytes
        super().__init__(
            run_id,
            caller_id=call.caller.id,
            ticket=call.caller.ticket,
            tool=call.tool,
            streaming=call.streaming,
            session_id=call.session_id,
            on_disconnect=str(policy.on_disconnect),
            log=MemoryLog(limit_bytes=log_bytes, limit_chunks=limits.log_chunks, budget=budget),
            tally=tally,
        )
        # This tool's part of the tally, from the start on.
        self._counts: ToolTally | None = None
        self.call = call
        self.policy = policy
        self.recorder = recorder
        self._limits = limits
        # Why we ended it, by a name of tally.CANCEL_CAUSES; None where it ended by itself, or hasn't. And its chunks' bytes, as JSON.
        self.cause: str | None = None
        self.size_bytes = 0
        self.trace = call.trace
        self._owner = owner
        self._timers = timers.running()
        # Subscribers on other gateways.
        self._remote = 0
        # While nobody reads and somebody may come back.
        self._grace: timers.Timer | None = None
        self._kept: Place | None = None
        self._was_queued = False
        self._paused = False
        self._ticket: Ticket | None = None
        self._upstream: StreamCall | None = None
        now = self._timers.time()
        self._watch = Stopwatch(now, call.timeout_s, policy.deadlines)
        self._timer = self._timers.call_at(self._watch.next_deadline(now, paused=False)[0], self._check_deadlines)

    @property
    def state(self) -> str:
        if self.ended is not None:
            return str(self.ended.outcome)
        return "queued" if self._upstream is None else "running"

    @property
    def paused(self) -> bool:
        """Whether the worker is made to wait for a slow reader."""
        return self._paused

    @property
    def silent_ms(self) -> int | None:
        """How long ago the last chunk came; None before the first."""
        at = self._watch.last_chunk_at
        return None if at is None else int((self._timers.time() - at) * 1000)

    @property
    def place(self) -> tuple[int, int] | None:
        return None if self._ticket is None else (self._ticket.position, self._ticket.depth)

    def start(self, pool: Pool) -> None:
        """Take a worker, or a place in the pool's queue.

        Raises:
            GatewayError: the pool refuses at once; the run is then as if it had never been.
        """
        self.pool = pool.name
        if self.call.streaming:
            self._watch.expect(pool.idle_timeout_s, pool.silence)
        request = LeaseRequest(self.call.session_id, self.call.affinity, self.call.tool, self.call.worker_id)
        try:
            granted = pool.acquire(request, self)
        except GatewayError:
            self._timer.cancel()
            raise
        if self.tally is not None:
            self._counts = self.tally.tool(self.tool, pool.name)
            self._counts.started += 1
        if isinstance(granted, Ticket):
            self._ticket = granted
            self._was_queued = True
            if self.trace is not None:
                self.trace.queued(granted.position, granted.depth)
            if self.recorder is not None:
                self.recorder.status(self._queued(granted.position, granted.depth))
        else:
            self.on_lease(granted)

    def subscribe(self, wake: Callable[[], None], caller: Caller, options: ReaderOptions = READ_ALL) -> Subscription:
        """See RunSource; who comes while it waits is told its place."""
        reader = super().subscribe(wake, caller, options)
        if self._ticket is not None:
            reader.note(self._queued(self._ticket.position, self._ticket.depth))
        return reader

    def remote_subscribers(self, count: int) -> None:
        """Say how many subscribers there are on other gateways: they keep the run alive as those here do."""
        left, self._remote = self._remote > 0 and count == 0, count
        if count:
            self._end_grace()
        elif left and not self._subscribers:
            self._left_alone(self.log.next)

    def cancel(self, cause: Cause) -> None:
        """End the run as cancelled, whatever it is doing; idempotent."""
        self._ends_for(cause.name.lower())
        outcome, problem = _ENDINGS.get(cause, (Outcome.CANCELLED, "cancelled"))
        self._end(outcome, GatewayError(problem, f"The run ended: {cause.value}"))

    def fail(self, error: GatewayError) -> None:
        """End the run for what its caller has sent to it since it began; idempotent."""
        self._end(Outcome.ERROR, error)

    # the pool's answers: LeaseHolder

    def on_lease(self, lease: Lease) -> None:
        """A worker is ours: start the call on it."""
        self._ticket = None
        self.worker_id = lease.worker_id
        watch = self._watch
        now = watch.leased_at = self._timers.time()
        if self._counts is not None:
            self._counts.queue.observe(now - watch.accepted_at)
        if self.trace is not None:
            self.trace.leased(self.id, lease.pool, lease.worker_id)
        try:
            self._upstream = lease.execute(self.call, self.id, watch.remaining_s(now), self, self.call.correlation.metadata())
        except TypeError as exc:
            # Only a gRPC caller can have an argument that JSON has no word for.
            self._end(Outcome.ERROR, GatewayError("invalid-arguments", f"An argument can't be sent as JSON: {exc}"))
            return
        except GatewayError as error:
            self._end(Outcome.ERROR, error)
            return
        if watch.watches_silence:
            self._timer.cancel()
            self._check_deadlines()
        if self._was_queued or self.recorder is not None:
            status = Status("running", {"worker": lease.worker_id, "pool": lease.pool, "attempt": 1})
            if self.recorder is not None:
                self.recorder.status(status)
            if self._was_queued:
                self._show(status)

    def on_refused(self, error: GatewayError) -> None:
        """The queue gave up on us."""
        self._ticket = None
        self._end(Outcome.ERROR, error)

    def on_position(self, position: int, depth: int) -> None:
        """Our place in the queue changed."""
        self._tell(self._queued(position, depth))

    # the worker's answers: ToolSink

    def on_chunks(self, payloads: list[bytes], size_bytes: int, attributes: dict[int, ChunkAttributes] | None) -> None:
        """Number a batch, and make the worker wait where the slowest reader is too far behind."""
        if self.ended is not None:
            return
        watch, now = self._watch, self._timers.time()
        if (counts := self._counts) is not None:
            counts.chunks += len(payloads)
            counts.chunk_bytes += size_bytes
            if watch.last_chunk_at is None:
                counts.first_chunk.observe(now - watch.accepted_at)
            else:
                counts.gap.observe(now - watch.last_chunk_at)
        if self.trace is not None and watch.last_chunk_at is None:
            self.trace.first_chunk()
        self.size_bytes += size_bytes
        watch.chunks_came(now)
        before_bytes = self.log.total_bytes
        batch = self.log.append(payloads, size_bytes, attributes)
        if self.recorder is not None:
            self.recorder.appended(batch)
        for reader in self._readers:
            reader.wake()
        if not self._paused and self.log.is_lagging() and self._upstream is not None:
            self._paused = True
            self._upstream.pause_reading()
        # Last: who is cut leaves at once, which may end the run.
        if self._sheds:
            self._shed(before_bytes)

    def on_headers(self, headers: Sequence[tuple[str, str]]) -> None:
        """Keep them for those who answer with headers of their own."""
        self.headers = headers

    def on_end(self, end: ToolEnd) -> None:
        """The call has ended."""
        if end.error is not None:
            outcome = Outcome.DEADLINE if end.error.problem == "worker-timeout" else Outcome.ERROR
            self._end(outcome, end.error, end.metadata, end.marks)
        elif end.cancelled:
            self._end(Outcome.CANCELLED, GatewayError("cancelled", "The worker's call was cancelled"), end.metadata)
        else:
            synthetic = {} if end.has_final else {"synthetic_final": "true"}
            self._end(Outcome.OK, None, {**end.metadata, **synthetic}, end.marks)

    # the readers' news: RunSource

    def reader_advanced(self) -> None:
        """Let the worker go on once every reader is near enough."""
        if self._paused and self._upstream is not None and not self.log.is_lagging(2):
            self._paused = False
            # The silence until now was ours, not the tool's.
            if self._watch.last_chunk_at is not None:
                self._watch.last_chunk_at = self._timers.time()
            self._upstream.resume_reading()

    def _subscriber_came(self) -> None:
        self._end_grace()

    def _subscriber_left(self, cursor: int) -> None:
        if self.ended is None and not self._subscribers and not self._remote:
            self._left_alone(cursor)

    def _left_alone(self, cursor: int) -> None:
        """The last subscriber has left, having taken everything ahead of `cursor`."""
        on_disconnect = self.policy.on_disconnect
        if on_disconnect.kind is Leaving.CANCEL:
            self.cancel(Cause.DISCONNECT)
        elif on_disconnect.kind is Leaving.GRACE and self.ended is None:
            log = self.log
            self._kept = Place(cursor, log.bytes_before(cursor), log.lag_limit_bytes)
            log.places.append(self._kept)
            self._grace = self._timers.call_later(on_disconnect.grace_s, partial(self.cancel, Cause.GRACE))

    def _end_grace(self) -> None:
        """Somebody reads again, or nobody ever will."""
        if self._grace is not None and self._kept is not None:
            self._grace.cancel()
            self.log.places.remove(self._kept)
            self._grace = self._kept = None
            self.log.trim()
            self.reader_advanced()

    def _check_deadlines(self) -> None:
        """End the run where a deadline has passed, else look again at the next one.

        One timer a run: chunks only note when they came, they don't move it.
        """
        now = self._timers.time()
        when, limit = self._watch.next_deadline(now, paused=self._paused)
        if now >= when:
            self._ends_for(f"deadline_{limit.value}")
            self._end(Outcome.DEADLINE, self._watch.passed(limit))
        else:
            self._timer = self._timers.call_at(when, self._check_deadlines)

    def _ends_for(self, cause: str) -> None:
        """Note why we are about to end the run, if it hasn't ended."""
        if self.ended is None:
            self.cause = cause
            if self.tally is not None:
                self.tally.run_cancelled(cause)

    def _end(self, outcome: Outcome, error: GatewayError | None, metadata: Mapping[str, str] | None = None, marks: Marks = ()) -> None:
        if self.ended is not None:
            return
        self._timer.cancel()
        if self._counts is not None:
            waited_s = self._timers.time() - self._watch.accepted_at
            self._counts.run_ended(outcome.value, waited_s, had_worker=self._watch.leased_at is not None)
        self.ended = end = Ended(outcome, self.log.next - 1, self._decorate(metadata or {}), self.timing(), error, marks)
        if self._ticket is not None:
            self._ticket.cancel()
        elif self._upstream is not None:
            # Harmless when the call has ended by itself; otherwise RST_STREAM leaves with this very step.
            self._upstream.cancel()
        self._ticket = self._upstream = None
        self._end_grace()
        self.log.end()
        # An ended run is known for a while; its arguments, which may be megabytes, are not needed for that.
        self.call = self.call.bare()
        if self.trace is not None:
            self.trace.ended(end, cause=self.cause, size_bytes=self.size_bytes)
            self.trace = None
        if self.recorder is not None:
            self.recorder.ended(end)
        self._tell_end()
        self._owner.run_ended(self)

    def _decorate(self, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """Add what Snakepit adds to a final chunk, where the worker hasn't said it itself; nothing to an rpc's."""
        if self.worker_id is None or self._watch.leased_at is None or is_rpc(self.tool):
            return metadata
        elapsed_ms = int((self._timers.time() - self._watch.leased_at) * 1000)
        return {"execution_time_ms": str(elapsed_ms), "tool_type": "remote", "worker_id": self.worker_id, **metadata}

    def details(self) -> Mapping[str, Any]:
        return start_details(self.id, self.call, self.policy, heartbeat_s=self._limits.heartbeat_s, idle_s=self._watch.idle_s)

    @property
    def trace_id(self) -> str | None:
        return self.call.correlation.trace_id

    def timing(self) -> Timing:
        """Return how long it took so far."""
        return self._watch.timing(self._timers.time())

    def _tell(self, status: Status) -> None:
        if self.recorder is not None:
            self.recorder.status(status)
        self._show(status)

    def _queued(self, position: int, depth: int) -> Status:
        return Status("queued", {"position": position, "depth": depth, "pool": self.pool})
