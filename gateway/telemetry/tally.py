"""What is counted while it happens: numbers in plain objects, read when somebody scrapes (metrics.py).

Written by runs/, workers/ and endpoints/, on the event loop, at a run's start and end and at most once a batch. Plain objects
and not the client library's: its counters take a lock and look their labels up for each step, several times what a batch may
cost. Invariant: a label is never a client's text. Tools are those that a worker offers, at most TOOLS_LIMIT; all others
are OTHER.
"""

from __future__ import annotations

from bisect import bisect_left

from gateway.events import READER_OUTCOMES, Outcome

OTHER = "other"
# (tool, pool) pairs with series of their own; those beyond are counted together.
TOOLS_LIMIT = 250

# Upper bounds, in seconds. The event loop's clock is as fine as a millisecond.
WAIT_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RUN_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
STOP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# `runs.policy.Cause` by name, and the deadlines of `runs.stopwatch.Limit`, which are nobody's wish.
CANCEL_CAUSES = (
    "disconnect",
    "grace",
    "client",
    "reload",
    "shutdown",
    "fenced",
    "deadline_total",
    "deadline_queue",
    "deadline_first_chunk",
    "deadline_idle",
)
# Why a call that a tool has yet to stop for was ended; OTHER: it broke off, or nobody knows any more.
STOP_CAUSES = (*CANCEL_CAUSES, OTHER)
GAP_REASONS = ("evicted", "slow_consumer")
# A run of ours has every outcome but those that are said of one reader.
RUN_OUTCOMES = tuple(outcome.value for outcome in Outcome if outcome not in READER_OUTCOMES)


class Histogram:
    """How often a value was at most each of `bounds`, which ascend; the last of `counts` is for what is above all of them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def copy(self) -> Histogram:
        """Return one with the same numbers, which changes no more."""
        copied = Histogram(self.bounds)
        copied.counts = self.counts[:]
        copied.sum = self.sum
        return copied

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class ToolTally:
    """One tool in one pool. `ended` is by outcome; the histograms are of seconds."""

    __slots__ = ("chunk_bytes", "chunks", "duration", "ended", "first_chunk", "gap", "pool", "queue", "started", "tool")

    def __init__(self, tool: str, pool: str) -> None:
        self.tool = tool
        self.pool = pool
        self.started = 0
        self.ended: dict[str, int] = dict.fromkeys(RUN_OUTCOMES, 0)
        self.chunks = 0
        self.chunk_bytes = 0
        # From the acceptance: to the worker, or to the end of who never got one; to the first chunk; to the end.
        self.queue = Histogram(WAIT_BOUNDS_S)
        self.first_chunk = Histogram(WAIT_BOUNDS_S)
        self.duration = Histogram(RUN_BOUNDS_S)
        # The tool's silence between two batches.
        self.gap = Histogram(WAIT_BOUNDS_S)

    def copy(self) -> ToolTally:
        """Return one with the same numbers, which changes no more."""
        copied = ToolTally(self.tool, self.pool)
        copied.started, copied.chunks, copied.chunk_bytes = self.started, self.chunks, self.chunk_bytes
        copied.ended = dict(self.ended)
        copied.queue, copied.first_chunk = self.queue.copy(), self.first_chunk.copy()
        copied.duration, copied.gap = self.duration.copy(), self.gap.copy()
        return copied

    def run_ended(self, outcome: str, duration_s: float, *, had_worker: bool = True) -> None:
        """Count an end. A run that never had a worker has waited all of its time."""
        if not had_worker:
            # Else those who waited in vain, the longest, would not show.
            self.queue.observe(duration_s)
        self.ended[outcome] += 1
        self.duration.observe(duration_s)


class RunTally:
    """All runs of a gateway since it began. Everything is bounded by the tables above and TOOLS_LIMIT."""

    __slots__ = ("_tools", "cancels", "gap_chunks", "gaps", "refused")

    def __init__(self) -> None:
        self._tools: dict[tuple[str, str], ToolTally] = {}
        # By (tool, problem), by cause, by reason.
        self.refused: dict[tuple[str, str], int] = {}
        self.cancels: dict[str, int] = dict.fromkeys(CANCEL_CAUSES, 0)
        self.gaps: dict[str, int] = dict.fromkeys(GAP_REASONS, 0)
        self.gap_chunks: dict[str, int] = dict.fromkeys(GAP_REASONS, 0)

    @property
    def tools(self) -> list[ToolTally]:
        """What was counted by tool and pool, in the order in which they came."""
        return list(self._tools.values())

    def tool(self, tool: str, pool: str) -> ToolTally:
        """Return the tally of a tool that a worker of this pool offers."""
        tally = self._tools.get((tool, pool))
        if tally is None:
            if len(self._tools) >= TOOLS_LIMIT and tool != OTHER:
                return self.tool(OTHER, pool)
            tally = self._tools[(tool, pool)] = ToolTally(tool, pool)
        return tally

    def run_refused(self, tool: str, problem: str) -> None:
        """Count a run that never began. `tool` is one of the catalogue's, or OTHER; `problem` one of errors.py's table."""
        key = (tool, problem)
        if key not in self.refused and len(self.refused) >= TOOLS_LIMIT:
            key = (OTHER, problem)
        self.refused[key] = self.refused.get(key, 0) + 1

    def run_cancelled(self, cause: str) -> None:
        """Count a run that we ended; `cause` is one of CANCEL_CAUSES."""
        self.cancels[cause] += 1

    def gap_told(self, reason: str, chunks: int) -> None:
        """Count a gap that a reader was told; `reason` is one of GAP_REASONS."""
        self.gaps[reason] += 1
        self.gap_chunks[reason] += chunks


class ResponseTally:
    """HTTP responses by the template of their route and the class of their status; OTHER for paths that are no route."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], int] = {}

    def response_began(self, route: str, status: int) -> None:
        """Count a response whose status line is sent."""
        key = (route, status // 100)
        self.counts[key] = self.counts.get(key, 0) + 1
