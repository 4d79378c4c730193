"""A log line on each run that has ended, or on those that went wrong.

Called by the hub, once a run, on the event loop. A line costs as much as all else that is done for a short run, so what ended well is
written only on request; and a client whose every run fails must not make the log the bottleneck: of failures, `lines_per_s` are
written and the rest is counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import structlog

from gateway.caller import ANONYMOUS
from gateway.events import Outcome
from gateway.runs.run import Run

LOGGER: Final = "gateway.run"
FAILURES: Final = frozenset({Outcome.ERROR, Outcome.DEADLINE})

_log = structlog.get_logger(LOGGER)


class RunLines:
    """`every`: all runs get a line, without a bound; else those that failed do, and all of them at level debug."""

    def __init__(self, *, every: bool, lines_per_s: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._lines_per_s = lines_per_s
        self._clock = clock
        self._level = logging.getLogger(LOGGER)
        self._second = 0
        self._lines = 0

    def run_ended(self, run: Run) -> None:
        """Write what became of a run."""
        end = run.ended
        assert end is not None, "it has ended"
        if self._every or (end.outcome in FAILURES and self._is_within()):
            _log.info("run ended", **describe(run))
        elif end.outcome not in FAILURES and self._level.isEnabledFor(logging.DEBUG):
            _log.debug("run ended", **describe(run))

    def _is_within(self) -> bool:
        """Return whether one more line of this second is written."""
        second = int(self._clock())
        if second != self._second:
            if self._lines > self._lines_per_s:
                _log.warning("lines on failed runs left out", lines=self._lines - self._lines_per_s)
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= self._lines_per_s


def describe(run: Run) -> dict[str, object]:
    """Return what is said of a run that has ended: names, numbers and the problem's type; neither arguments nor what a tool has said."""
    end, call = run.ended, run.call
    assert end is not None, "it has ended"
    said: dict[str, object] = {
        "run": run.id,
        "tool": run.tool,
        "pool": run.pool,
        "worker": run.worker_id,
        "outcome": end.outcome.value,
        "chunks": end.chunks,
        "bytes": run.size_bytes,
    }
    if end.timing is not None:
        said |= end.timing.parts()
    optional = {
        "cause": run.cause,
        "problem": None if end.error is None else end.error.problem,
        "code": None if end.error is None else end.error.code.name,
        "session": run.session_id,
        "caller": None if call.caller == ANONYMOUS else call.caller.id,
        "request_id": call.correlation.request_id or None,
        "trace_id": run.trace_id,
    }
    return said | {name: value for name, value in optional.items() if value is not None}
