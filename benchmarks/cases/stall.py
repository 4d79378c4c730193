"""20 readers of endless streams that stop reading: memory must stop growing, and the upstream must stop sending."""

from __future__ import annotations

import asyncio
from functools import partial

from benchmarks.cases.stage import Figures, Stage
from benchmarks.load.reader import StreamReader, opened
from benchmarks.plan import ENDLESS, Plan
from benchmarks.process import private_bytes
from benchmarks.upstream.handle import ReportReader, reports

READERS = 20
# Buffers count as full when the upstream sent nothing for a look; a target that never stops is watched after the limit.
LOOK_S = 1.0
FILL_LIMIT_S = 10.0
WATCHED_S = 3.0
RECEIVE_BUFFER_BYTES = 64 * 1024
MB = 1e6


async def stall(stage: Stage) -> Figures:
    """20 readers that stop reading."""
    pid = stage.served.process.pid
    before = private_bytes(pid)
    readers = [stage.reader(Plan(ENDLESS, key=f"stall-{n}")) for n in range(READERS)]
    async with reports(stage.upstream) as reports_of, opened(readers, stage.served.port, receive_buffer_bytes=RECEIVE_BUFFER_BYTES):
        for reader in readers:
            reader.first.add_done_callback(partial(_stop, reader))
        await asyncio.wait([reader.first for reader in readers])
        await _filled(reports_of)
        held, sent = private_bytes(pid), await _sent(reports_of)
        await asyncio.sleep(WATCHED_S)
        held_later, sent_later = private_bytes(pid), await _sent(reports_of)
    return {
        "mb_per_reader": (held_later - before) / READERS / MB,
        "growth_mb_per_s": (held_later - held) / WATCHED_S / MB,
        "sent_mb_per_reader": sent_later / READERS / MB,
        "sending_mb_per_s": (sent_later - sent) / WATCHED_S / MB,
    }


def _stop(reader: StreamReader, _: asyncio.Future[None]) -> None:
    reader.stop_reading()


async def _filled(reports_of: ReportReader) -> None:
    """Wait until the upstream has stopped sending, or FILL_LIMIT_S."""
    before = -1
    for _ in range(int(FILL_LIMIT_S / LOOK_S)):
        sent = await _sent(reports_of)
        if sent == before:
            return
        before = sent
        await asyncio.sleep(LOOK_S)


async def _sent(reports_of: ReportReader) -> int:
    return sum((await reports_of.sent()).values())
