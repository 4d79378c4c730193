"""The line that a run leaves in the log."""

from __future__ import annotations

import logging

import pytest
from structlog.testing import capture_logs

from gateway.call import ToolCall
from gateway.caller import Caller
from gateway.correlation import Correlation
from gateway.runs.journal import LOGGER, RunLines
from gateway.runs.policy import Cause, RunLimits, RunPolicy
from gateway.runs.run import Run
from tests.conftest import FakePool
from tests.runs.conftest import RUN_ID, Clock, Owner

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


async def ended(clock: Clock, pool: FakePool, how: str, *, secret: str = "") -> Run:
    correlation = Correlation("req-1", f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    call = ToolCall("count", {"password": secret}, 60.0, session_id="s", caller=Caller("alice"), correlation=correlation)
    run = Run(RUN_ID, call, RunPolicy(), RunLimits(), Owner())
    run.start(pool)  # type: ignore[arg-type]
    worker = await pool.next_call()
    clock.advance(0.25)
    worker.send({"secret": secret})
    clock.advance(0.75)
    if how == "ok":
        worker.end()
    elif how == "error":
        worker.fail()
    else:
        run.cancel(Cause.CLIENT)
    return run


async def test_a_line_says_what_became_of_the_run_and_whose_it_was(clock: Clock, pool: FakePool) -> None:
    run = await ended(clock, pool, "error", secret="hunter2")
    with capture_logs() as logs:
        RunLines(every=False).run_ended(run)
    assert logs == [
        {
            "event": "run ended",
            "log_level": "info",
            "run": RUN_ID,
            "tool": "count",
            "pool": "default",
            "worker": "w-1",
            "outcome": "error",
            "chunks": 1,
            "bytes": len('{"secret":"hunter2"}'),
            "queue_ms": 0,
            "first_chunk_ms": 250,
            "total_ms": 1000,
            "problem": "tool-error",
            "code": "INVALID_ARGUMENT",
            "session": "s",
            "caller": "alice",
            "request_id": "req-1",
            "trace_id": TRACE_ID,
        }
    ]


@pytest.mark.parametrize(
    ("every", "level", "expected"), [(False, "INFO", []), (False, "DEBUG", ["debug"] * 2), (True, "INFO", ["info"] * 2)]
)
async def test_what_did_not_fail_is_written_on_request_only(
    clock: Clock, pool: FakePool, every: bool, level: str, expected: list[str]
) -> None:
    runs = [await ended(clock, pool, "ok"), await ended(clock, pool, "cancelled")]
    before = logging.getLogger(LOGGER).level
    logging.getLogger(LOGGER).setLevel(level)
    try:
        with capture_logs() as logs:
            for run in runs:
                RunLines(every=every).run_ended(run)
    finally:
        logging.getLogger(LOGGER).setLevel(before)
    assert [line["log_level"] for line in logs] == expected
    assert [line.get("cause") for line in logs] == [None, "client"][: len(expected)]


async def test_a_flood_of_failures_is_counted_not_written(clock: Clock, pool: FakePool) -> None:
    run = await ended(clock, pool, "error")
    now = 100.0
    lines = RunLines(every=False, lines_per_s=3, clock=lambda: now)
    with capture_logs() as logs:
        for _ in range(10):
            lines.run_ended(run)
        now = 101.0
        lines.run_ended(run)
    assert [line["event"] for line in logs] == ["run ended"] * 3 + ["lines on failed runs left out", "run ended"]
    assert logs[3]["lines"] == 7
