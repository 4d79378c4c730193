"""A gateway in a process of its own: records a run, says so on stdout, then waits to be killed."""

from __future__ import annotations

import asyncio
import sys

import structlog

from gateway.events import Chunks, Status
from gateway.runlog.shared.log import SharedLog
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.records import Claim, RunRecord


class Nobody:
    """Runs that hear nothing but being fenced, which is said on stdout."""

    def on_cancel(self, run_id: str) -> None:
        pass

    def on_remote_readers(self, run_id: str, total: int) -> None:
        pass

    def on_fenced(self, run_id: str) -> None:
        print("fenced", run_id, flush=True)  # noqa: T201


async def main(url: str, prefix: str) -> None:
    options = SharedLogOptions(prefix=prefix, lease_ttl_s=1.5, lease_interval_s=0.2, backoff_max_s=0.1, operation_timeout_s=1.0)
    log = SharedLog(url, "other-process", Nobody(), options)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(log.run())
        await log.connected()
        await log.register(RunRecord("r_theirs", "count"), Claim("key", "print"))
        run = log.recorder("r_theirs")
        run.status(Status("running"))
        number = 0
        recorded = False
        while True:
            number += 1
            run.appended(Chunks(number, [b"%d" % number], 50))
            await asyncio.sleep(0.005)
            if not recorded and number >= 20 and run.idle:
                recorded = True
                print("recorded", flush=True)  # noqa: T201


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main(*sys.argv[1:]))
