"""The runs that are known by their id: those that are open, those that have ended, and the ids of those that are forgotten.

Owned by the hub. An ended run is kept for `ttl_s`, so that a reader may come back to it, and at most `kept_limit` of them
are: the one that ended first is forgotten for another. A forgotten run's id is remembered as expired for `ttl_s` more, in the
same number. One timer serves all; nothing is done for each run but at its beginning, its end and its expiry.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gateway import timers
from gateway.caller import Caller
from gateway.runs.run import Run


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first. `next` is the id that the following page begins after; None on the last one."""

    runs: list[Run]
    next: str | None


class RunRegistry:
    """The runs of this gateway, by id. `on_forgotten` is told of each that is not known any more."""

    def __init__(self, *, kept_limit: int, ttl_s: float, on_forgotten: Callable[[Run], None]) -> None:
        self._kept_limit = kept_limit
        self._ttl_s = ttl_s
        self._on_forgotten = on_forgotten
        self._known: dict[str, Run] = {}
        self._open: dict[str, Run] = {}
        # When each expires and its id, in that order. Not in a dict: to find the first of one from which the first is taken
        # again and again takes longer and longer.
        self._ended: deque[tuple[float, str]] = deque()
        self._expired: deque[tuple[float, str]] = deque()
        # Whose those were.
        self._expired_of: dict[str, str] = {}
        self._timer: timers.Timer | None = None

    @property
    def open(self) -> dict[str, Run]:
        """Those that are queued or running; not to be changed."""
        return self._open

    @property
    def known(self) -> Collection[Run]:
        """Those that are open and those that have ended and are kept; not to be changed."""
        return self._known.values()

    def find(self, run_id: str) -> Run | None:
        """Return a run that is open, or has ended and is still kept; else None."""
        return self._known.get(run_id)

    def is_expired(self, run_id: str, caller: Caller) -> bool:
        """Return whether a run of that id, which the caller might see, was forgotten lately."""
        owner_id = self._expired_of.get(run_id)
        return owner_id is not None and caller.may_see(owner_id)

    def add(self, run: Run) -> None:
        """Take a run that begins."""
        self._known[run.id] = self._open[run.id] = run

    def discard(self, run: Run) -> None:
        """Forget a run that never began."""
        del self._known[run.id], self._open[run.id]

    def end(self, run: Run) -> None:
        """Keep a run that has ended, for its time."""
        del self._open[run.id]
        now = timers.running().time()
        self._ended.append((now + self._ttl_s, run.id))
        if len(self._ended) > self._kept_limit:
            self._forget_first(now)
        if self._timer is None:
            self._arm()

    def page(self, caller: Caller, *, limit: int, after: str | None = None, state: str | None = None, tool: str | None = None) -> RunPage:
        """Return the `limit` newest runs that are older than `after` (a run's id; None: the newest of all) and fit the filters.

        They are those that the caller may see.
        """
        # Made when asked for: the ids are nearly sorted, and keeping an index would cost every run.
        ids = sorted(self._known)
        end = len(ids) if after is None else bisect_left(ids, after)
        runs: list[Run] = []
        for index in range(end - 1, -1, -1):
            run = self._known[ids[index]]
            if not caller.may_see(run.caller_id):
                continue
            if (state is None or run.state == state) and (tool is None or run.tool == tool):
                if len(runs) == limit:
                    return RunPage(runs, runs[-1].id)
                runs.append(run)
        return RunPage(runs, None)

    def _forget_first(self, now: float) -> None:
        run_id = self._ended.popleft()[1]
        run = self._known.pop(run_id)
        run.release()
        self._on_forgotten(run)
        self._expired.append((now + self._ttl_s, run_id))
        self._expired_of[run_id] = run.caller_id
        if len(self._expired) > self._kept_limit:
            del self._expired_of[self._expired.popleft()[1]]

    def _sweep(self) -> None:
        self._timer = None
        now = timers.running().time()
        while self._ended and self._ended[0][0] <= now:
            self._forget_first(now)
        while self._expired and self._expired[0][0] <= now:
            del self._expired_of[self._expired.popleft()[1]]
        self._arm()

    def _arm(self) -> None:
        if expiries := [kept[0][0] for kept in (self._ended, self._expired) if kept]:
            # Not for each run: those that end within the same second go together.
            self._timer = timers.running().call_at(min(expiries) + min(1.0, self._ttl_s / 10), self._sweep)
