"""What a worker process prints: a log line for each of its lines, and the last ones kept for error messages.

A pipe's read end feeds it, so a worker can never block on a full pipe, and no task is needed. A line is cut
at LINE_LIMIT_BYTES; of a flood, LINES_PER_S reach the log and the rest is counted there.
A line that names a run as the runtime's own logging does, ` [r_…]: `, is logged as that run's.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque

import structlog

log = structlog.get_logger("gateway.worker")

TAIL_LINES = 20
LINE_LIMIT_BYTES = 4096
LINES_PER_S = 500

_RUN = re.compile(r" \[(r_[0-9A-Z]{26})\]: ")


class OutputReader(asyncio.Protocol):
    """The reading side of a worker's stdout and stderr."""

    def __init__(self, worker_id: str, pool: str) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.closed = asyncio.Event()
        self._names = {"worker": worker_id, "pool": pool}
        self._partial = b""
        self._second = 0
        self._lines = 0

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._partial) > LINE_LIMIT_BYTES:
            self._say(self._partial)
            self._partial = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._partial:
            self._say(self._partial)
        self.closed.set()

    def _say(self, line: bytes) -> None:
        text = line[:LINE_LIMIT_BYTES].decode(errors="replace").rstrip()
        if not text:
            return
        self.tail.append(text)
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            if self._lines > LINES_PER_S:
                log.warning("worker output left out", **self._names, lines=self._lines - LINES_PER_S)
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= LINES_PER_S:
            found = _RUN.search(text)
            log.info("worker output", **self._names, **({} if found is None else {"run": found[1]}), line=text)
