"""What the upstream tells the harness, on a socket of its own, a line each.

cancelled KEY NS     a stream was reset (or its connection lost) at this moment of the monotonic clock
sent {"KEY": BYTES}  the answer to the line `sent`: flow-controlled bytes sent on each open stream that has a key
"""

from __future__ import annotations

import asyncio
import json
import time

from benchmarks.upstream.execution import Execution


class Reports:
    """The open streams, and the harness's connections."""

    def __init__(self) -> None:
        self._open: dict[int, Execution] = {}
        self._listeners: set[asyncio.Transport] = set()

    def opened(self, execution: Execution) -> None:
        self._open[id(execution)] = execution

    def finished(self, execution: Execution) -> None:
        del self._open[id(execution)]

    def cancelled(self, execution: Execution) -> None:
        moment = time.monotonic_ns()
        del self._open[id(execution)]
        if execution.plan.key:
            for listener in self._listeners:
                listener.write(f"cancelled {execution.plan.key} {moment}\n".encode())

    def sent(self) -> dict[str, int]:
        """Return the bytes sent on each open stream that has a key."""
        return {execution.plan.key: execution.sent_bytes for execution in self._open.values() if execution.plan.key}

    def add(self, listener: asyncio.Transport) -> None:
        self._listeners.add(listener)

    def remove(self, listener: asyncio.Transport) -> None:
        self._listeners.discard(listener)


class ReportServer(asyncio.Protocol):
    """One connection of the harness."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._reports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reports.remove(self._transport)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"sent\n")):
            self._transport.write(f"sent {json.dumps(self._reports.sent())}\n".encode())
