"""The harness's side of the upstream: its process, and a connection to its reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Process, running

REPORT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running upstream and its two ports."""

    process: Process
    port: int
    report_port: int


@contextlib.contextmanager
def upstream(core: int, log: Path) -> Iterator[Upstream]:
    """Run an upstream for the time of the block."""
    with running([sys.executable, "-m", "benchmarks.upstream"], core=core, log=log) as process:
        line = process.first_line()
        if not line:
            raise RuntimeError(f"the upstream did not start; see {log}")
        port, report_port = map(int, line.split())
        yield Upstream(process, port, report_port)


class ReportReader:
    """Reads the upstream's reports on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def cancelled_at_ns(self, key: str) -> int:
        """Return when the upstream saw the cancellation of the stream `key`.

        Raises:
            TimeoutError: it didn't in REPORT_TIMEOUT_S.
        """
        async with asyncio.timeout(REPORT_TIMEOUT_S):
            while True:
                words = (await self._reader.readline()).split()
                if words[:2] == [b"cancelled", key.encode()]:
                    return int(words[2])

    async def sent(self) -> dict[str, int]:
        """Return the bytes sent so far on each open stream that has a key."""
        self._writer.write(b"sent\n")
        async with asyncio.timeout(REPORT_TIMEOUT_S):
            while True:
                line = await self._reader.readline()
                if line.startswith(b"sent "):
                    return {str(key): int(size) for key, size in json.loads(line[5:]).items()}


@contextlib.asynccontextmanager
async def reports(of: Upstream) -> AsyncIterator[ReportReader]:
    """Connect to an upstream's reports."""
    reader, writer = await asyncio.open_connection("127.0.0.1", of.report_port, limit=1 << 20)
    try:
        yield ReportReader(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
