"""The moments of one run, and the deadlines that count from them.

Owned by the run, which says when something happened; nothing here sets a timer. All times are the event loop's, in seconds.
"""

from __future__ import annotations

from enum import StrEnum

from gateway.errors import GatewayError
from gateway.events import Timing
from gateway.runs.policy import Deadlines


class Limit(StrEnum):
    """The deadlines of a run; the `deadline` of the problem that says it has passed."""

    TOTAL = "total"
    QUEUE = "queue"
    FIRST_CHUNK = "first_chunk"
    IDLE = "idle"


class Stopwatch:
    """When a run was accepted, got its worker, had its first and its last chunk; None for what has not happened."""

    __slots__ = ("_deadlines", "_silence", "_timeout_s", "accepted_at", "first_chunk_at", "idle_s", "last_chunk_at", "leased_at")

    def __init__(self, accepted_at: float, timeout_s: float, deadlines: Deadlines) -> None:
        self._timeout_s = timeout_s
        self._deadlines = deadlines
        # The limit on a silence: the run's own, else its pool's.
        self.idle_s = deadlines.idle_s
        self._silence = ""
        self.accepted_at = accepted_at
        self.leased_at: float | None = None
        self.first_chunk_at: float | None = None
        self.last_chunk_at: float | None = None

    def expect(self, idle_s: float | None, silence: str) -> None:
        """Take the pool's limit on a silence, where the run has none of its own, and its words for what a silence may mean."""
        if self.idle_s is None:
            self.idle_s = idle_s
        self._silence = f"; {silence}" if silence else ""

    @property
    def watches_silence(self) -> bool:
        """Whether there are deadlines that begin with the worker."""
        return self.idle_s is not None or self._deadlines.first_chunk_s is not None

    def chunks_came(self, now: float) -> None:
        """Note that a batch has come."""
        self.last_chunk_at = now
        if self.first_chunk_at is None:
            self.first_chunk_at = now

    def remaining_s(self, now: float) -> float:
        """Return what is left of the whole budget; never nothing, since a call needs some deadline."""
        return max(self._timeout_s - (now - self.accepted_at), 0.001)

    def next_deadline(self, now: float, *, paused: bool) -> tuple[float, Limit]:
        """Return when the next deadline is, and which one that is.

        `paused`: the worker is made to wait for a slow reader, so its silence is ours, which only the whole budget counts.
        """
        limits = self._deadlines
        found = self.accepted_at + self._timeout_s, Limit.TOTAL
        if self.leased_at is None:
            if limits.queue_s is not None:
                found = min(found, (self.accepted_at + limits.queue_s, Limit.QUEUE))
        elif self.last_chunk_at is None and limits.first_chunk_s is not None:
            found = min(found, (self.leased_at + limits.first_chunk_s, Limit.FIRST_CHUNK))
        elif self.idle_s is not None:
            quiet_since = now if paused else self.last_chunk_at or self.leased_at
            found = min(found, (quiet_since + self.idle_s, Limit.IDLE))
        return found

    def passed(self, limit: Limit) -> GatewayError:
        """Return the error that says which deadline has passed."""
        limits = self._deadlines
        if limit is Limit.QUEUE:
            detail, problem = f"no worker became free in {limits.queue_s:g} s, the run's queue time-out", "queue-timeout"
        elif limit is Limit.FIRST_CHUNK:
            detail = f"{limits.first_chunk_s:g} s passed without a first chunk, the run's first-chunk time-out{self._silence}"
            problem = "worker-timeout"
        elif limit is Limit.IDLE:
            whose = "the pool's" if limits.idle_s is None else "the run's"
            detail, problem = f"{self.idle_s:g} s passed without a chunk, {whose} idle time-out{self._silence}", "worker-timeout"
        else:
            waited_for = "a worker" if self.leased_at is None else "the tool"
            detail, problem = f"{self._timeout_s:g} s passed, the run's time-out, waiting for {waited_for}", "worker-timeout"
        return GatewayError(problem, detail, extra={"deadline": limit.value}, retry_after_s=1 if limit is Limit.QUEUE else None)

    def timing(self, now: float) -> Timing:
        """Return how long it took so far."""
        total_ms = int((now - self.accepted_at) * 1000)
        return Timing(self._since_accepted_ms(self.leased_at), self._since_accepted_ms(self.first_chunk_at), total_ms)

    def _since_accepted_ms(self, moment: float | None) -> int | None:
        return None if moment is None else int((moment - self.accepted_at) * 1000)
