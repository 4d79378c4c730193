"""The upstream's process: prints `PORT REPORT_PORT` when it listens, and ends when its stdin does."""

from __future__ import annotations

import asyncio
import gc
import sys

import uvloop

from benchmarks.upstream.connection import Connection
from benchmarks.upstream.reports import Reports, ReportServer


async def serve() -> None:
    """Listen on two free ports of the loopback interface until stdin ends."""
    loop = asyncio.get_running_loop()
    reports = Reports()
    calls = await loop.create_server(lambda: Connection(reports), "127.0.0.1", 0, backlog=4096)
    harness = await loop.create_server(lambda: ReportServer(reports), "127.0.0.1", 0)
    print(*(server.sockets[0].getsockname()[1] for server in (calls, harness)), flush=True)
    # Collections would show up as latency of the targets.
    gc.freeze()
    gc.disable()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(serve())
