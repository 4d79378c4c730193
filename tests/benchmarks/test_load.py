"""Upstream, target and load generator agree on what was delivered; nothing here looks at the clock."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from benchmarks.cases.rpc import Transcoder
from benchmarks.load.http import EventReader
from benchmarks.load.reader import StreamFailed, StreamReader, opened
from benchmarks.load.websocket import FrameReader
from benchmarks.peers.target import Envoy
from benchmarks.plan import ENDLESS, TOOL, Plan
from benchmarks.process import cpu_s, private_bytes
from benchmarks.targets import Gateway, Served, Stand, Target, post
from benchmarks.upstream.handle import Upstream, reports

CHUNKS = 300
NDJSON = Gateway(accept="application/x-ndjson", mark=b"}\n")


async def read(reader: StreamReader, served: Served) -> None:
    async with opened([reader], served.port), asyncio.timeout(20):
        await reader.done


def reader_of(target: Target, plan: Plan) -> EventReader:
    return EventReader(target.request(plan), target.mark, stamps=target.stamps)


@pytest.mark.parametrize("target", [Gateway(), NDJSON], ids=["sse", "ndjson"])
@pytest.mark.parametrize("size", [100, 65_536])
async def test_gateway_stream_has_the_planned_events(gateway: Served, target: Gateway, size: int) -> None:
    reader = reader_of(target, Plan(CHUNKS, size))
    await read(reader, gateway)
    assert reader.events == CHUNKS + target.extra_events
    assert f'"chunks":{CHUNKS}'.encode() in reader.tail


async def test_gateway_socket_has_the_planned_frames(gateway: Served) -> None:
    reader = FrameReader({"tool": TOOL, "args": Plan(CHUNKS).arguments()})
    await read(reader, gateway)
    assert reader.events == CHUNKS
    assert f'"chunks":{CHUNKS}'.encode() in reader.tail


async def test_every_paced_event_has_a_latency(gateway: Served) -> None:
    target = Gateway()
    reader = reader_of(target, Plan(20, interval_us=2000))
    await read(reader, gateway)
    assert len(reader.latencies_ns) == 20
    assert all(0 < latency < 60e9 for latency in reader.latencies_ns)


async def test_peer_stream_has_the_planned_events(peer: tuple[Target, Served]) -> None:
    target, served = peer
    reader = reader_of(target, Plan(CHUNKS, interval_us=100))
    await read(reader, served)
    assert reader.events == CHUNKS + target.extra_events
    assert len(reader.latencies_ns) == CHUNKS


async def test_transcoded_stream_has_the_planned_events_and_their_latencies(transcoder: Served) -> None:
    target = Transcoder()
    reader = reader_of(target, Plan(CHUNKS, interval_us=100))
    await read(reader, transcoder)
    assert reader.events == CHUNKS + target.extra_events
    assert len(reader.latencies_ns) == CHUNKS
    assert f'"chunks":{CHUNKS + 1}'.encode() in reader.tail


def test_transcoded_events_are_those_of_envoy(transcoder: Served, stand: Stand) -> None:
    ours = messages_of(transcoder, Transcoder())
    assert [sorted(message) for message in ours] == [["chunkId", "data"], ["chunkId", "data"], ["chunkId", "isFinal"]]
    envoy = Envoy()
    if (reason := envoy.missing()) is not None:
        pytest.skip(reason)
    with envoy.serving(stand) as served:
        theirs = messages_of(served, envoy)
    assert [{**message, "data": ""} for message in theirs] == [{**message, "data": ""} for message in ours]


def messages_of(served: Served, target: Target) -> list[dict[str, Any]]:
    """The messages of a stream of two chunks."""
    path, message = target.request(Plan(2)).split(b" ", 2)[1].decode(), target.request(Plan(2)).rpartition(b"\r\n\r\n")[2]
    answer = httpx.post(
        f"http://127.0.0.1:{served.port}{path}",
        content=message,
        headers={"accept": "text/event-stream", "content-type": "application/json"},
        timeout=20,
    )
    events = answer.text.strip().split("\n\n")
    unnamed = [event for event in events if "event:" not in event]
    return [json.loads(event[event.index("data:") + 5 :]) for event in unnamed]


async def test_requests_on_one_connection_are_all_counted(gateway: Served) -> None:
    target, left = Gateway(), 9
    request = target.request(Plan(3))

    def again() -> bytes | None:
        nonlocal left
        left -= 1
        return request if left >= 0 else None

    reader = EventReader(request, target.mark, again=again)
    await read(reader, gateway)
    assert reader.events == 10 * (3 + target.extra_events)


async def test_leaving_is_reported_by_the_upstream(gateway: Served, source: Upstream) -> None:
    async with reports(source) as reports_of:
        reader = reader_of(Gateway(), Plan(ENDLESS, interval_us=1000, key="left"))
        async with opened([reader], gateway.port), asyncio.timeout(20):
            await reader.first
            assert (await reports_of.sent())["left"] > 0
            left_at = time.monotonic_ns()
            reader.leave()
            assert await reports_of.cancelled_at_ns("left") > left_at
        assert "left" not in await reports_of.sent()


async def test_refused_request_fails_the_reader(gateway: Served) -> None:
    reader = EventReader(post("/v1/tools/nobody/stream", {}), b"\n\n")
    with pytest.raises(StreamFailed, match="status 404"):
        await read(reader, gateway)


def test_usage_of_a_process_is_read(gateway: Served) -> None:
    assert cpu_s(gateway.process.pid) > 0
    assert private_bytes(gateway.process.pid) > 1 << 20
