"""The memory that a gateway may hold for its runs and their readers, and what goes first when it is too much.

Owned by the hub's composition root, which tells it who holds what (`sources`): the runs' logs, what waits for slow connections, bodies
that are being read, the shared log's queue. It looks every LOOK_INTERVAL_S and nothing is done for a batch, so it is exceeded by
what comes in that time. What Python and its libraries need besides isn't counted: the limit is well below the container's.

    step      above            what goes
    trim      the limit        logs: those of ended runs, then the oldest of the largest live ones; they may hold what the others leave
    refuse    still the limit  new runs: 503 `memory-pressure`; until LOW_PART of it
    cut       CUT_PART of it   the readers that are furthest behind, whatever their overflow policy, without an end: they may come back
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import structlog

from gateway import timers
from gateway.errors import GatewayError
from gateway.runlog.budget import MemoryBudget
from gateway.runs.source import RunSource

LOOK_INTERVAL_S = 0.5
LOW_PART = 0.9
CUT_PART = 1.1
RETRY_AFTER_S = 5.0

_log = structlog.get_logger("gateway.memory")


class MemoryWatch:
    """The watch over one gateway's memory. `runs` are those that have readers, among others; `limit_bytes` None: nothing is watched.

    `sources`: what each part holds now, in bytes, by its name; the logs' is the budget's.
    """

    def __init__(self, budget: MemoryBudget, runs: Callable[[], Iterable[RunSource]], limit_bytes: int | None = None) -> None:
        self.sources: dict[str, Callable[[], int]] = {}
        self.limit_bytes = limit_bytes
        # Whether new runs are refused now.
        self.refuses = False
        # Runs that were refused and readers that were cut, in all.
        self.refused = 0
        self.cut = 0
        self._budget = budget
        self._log_limit_bytes = budget.limit_bytes
        self._runs = runs
        self._timer: timers.Timer | None = None

    def start(self) -> None:
        """Look from now on."""
        if self.limit_bytes is not None and self._timer is None:
            self._timer = timers.running().call_later(LOOK_INTERVAL_S, self._tick)

    def stop(self) -> None:
        """Look no more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def change(self, limit_bytes: int | None) -> None:
        """Have another limit from now on, or none."""
        self.stop()
        self.limit_bytes = limit_bytes
        if limit_bytes is None:
            self.refuses = False
            self._budget.change(self._log_limit_bytes)
        self.start()

    def held(self) -> dict[str, int]:
        """Return what each part holds now, in bytes."""
        return {"logs": self._budget.size_bytes, **{name: source() for name, source in self.sources.items()}}

    def refusal(self) -> GatewayError:
        """Return the error for a run that would be one too many, and count it."""
        self.refused += 1
        detail = f"The gateway's runs and their readers hold more than {self.limit_bytes} bytes"
        return GatewayError("memory-pressure", detail, retry_after_s=random.uniform(0.5, 1.5) * RETRY_AFTER_S)

    def look(self) -> None:
        """Compare what is held with the limit, and shed."""
        limit = self.limit_bytes
        if limit is None:
            return
        held = self.held()
        others = sum(held.values()) - held["logs"]
        # Not nothing: a log that holds a run's newest batch is what its readers live on.
        self._budget.change(max(1, min(self._log_limit_bytes, limit - others)))
        total = others + self._budget.size_bytes
        if not self.refuses and total > limit:
            self.refuses = True
            _log.warning("short of memory: new runs are refused", limit_bytes=limit, **held)
        elif self.refuses and total <= limit * LOW_PART:
            self.refuses = False
            _log.info("enough memory again", limit_bytes=limit, refused=self.refused, cut=self.cut, **held)
        if total > limit * CUT_PART:
            self._cut_readers(total - limit)

    def _cut_readers(self, wanted_bytes: int) -> None:
        """Cut those that are furthest behind until as much is behind nobody any more."""
        readers = [(run.log.total_bytes - reader.taken_bytes, reader) for run in self._runs() for reader in run.readers if not reader.cut]
        lags = [(lag, reader) for lag, reader in readers if lag > 0]
        lags.sort(key=lambda entry: entry[0], reverse=True)
        count = freed = 0
        for lag, reader in lags:
            if freed >= wanted_bytes:
                break
            reader.cut = True
            reader.wake()
            count, freed = count + 1, freed + lag
        if count:
            self.cut += count
            _log.warning("short of memory: readers that were far behind are cut", readers=count, behind_bytes=freed)

    def _tick(self) -> None:
        self._timer = None
        try:
            self.look()
        finally:
            self.start()
