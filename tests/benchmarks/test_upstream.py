"""The upstream keeps the rules of HTTP/2 that targets rely on, and delivers what the plan says."""

import asyncio

import pytest

from benchmarks.load.drain import drain, opening
from benchmarks.plan import ENDLESS, Plan
from benchmarks.upstream.connection import DATA, PREFACE, WINDOW_UPDATE, Connection, frame
from benchmarks.upstream.handle import Upstream
from benchmarks.upstream.reports import Reports


class Recorder(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def data_bytes(self) -> int:
        """The flow-controlled bytes written."""
        at = total = 0
        while at < len(self.written):
            size = int.from_bytes(self.written[at : at + 3], "big")
            total += size if self.written[at + 3] == DATA else 0
            at += 9 + size
        assert at == len(self.written), "whole frames only"
        return total


async def turns() -> None:
    """Let the loop do what it has to, a few turns long."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("count", "size"), [(0, 100), (1, 32), (500, 100), (20, 65_536)])
async def test_drain_counts_every_message_and_the_final_one(source: Upstream, count: int, size: int) -> None:
    messages, _ = await asyncio.to_thread(drain, source.port, Plan(count, size))
    assert messages == count + 1


async def test_paced_stream_delivers_all_its_chunks(source: Upstream) -> None:
    messages, _ = await asyncio.to_thread(drain, source.port, Plan(20, interval_us=1000))
    assert messages == 21


@pytest.mark.parametrize("size", [100, 65_536])
async def test_endless_stream_stops_at_the_window_and_goes_on_with_credit(size: int) -> None:
    connection, transport = Connection(Reports()), Recorder()
    connection.connection_made(transport)
    # Without the client's large windows: the preface and the call alone.
    call = opening(Plan(ENDLESS, size))
    headers_at = len(PREFACE) + 9 + 6 + 9 + 4
    connection.data_received(PREFACE + call[headers_at:])
    await turns()
    assert transport.data_bytes() == 65_535
    # Credit for one of the two windows alone is no room.
    for stream_id, total in ((1, 65_535), (0, 66_535), (0, 66_535), (1, 67_535)):
        connection.data_received(frame(WINDOW_UPDATE, 0, stream_id, (1000).to_bytes(4, "big")))
        await turns()
        assert transport.data_bytes() == total


async def test_nothing_is_sent_while_the_socket_is_full() -> None:
    connection, transport = Connection(Reports()), Recorder()
    connection.connection_made(transport)
    connection.pause_writing()
    connection.data_received(opening(Plan(10)))
    assert transport.data_bytes() == 0
    connection.resume_writing()
    await turns()
    assert transport.data_bytes() > 1000
