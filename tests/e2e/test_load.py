"""Many readers and slow readers: nothing is missing, doubled or swapped, and memory stays flat."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import websockets

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.harness import DEMO_ADAPTER, Served, bridge, read_ndjson, read_sse, rss_bytes, tool_request, until

STREAMS = 50
CHUNKS = 2_000
MEBIBYTE = 1024 * 1024


@pytest.mark.timeout(120)
async def test_50_streams_of_2000_chunks_are_complete_and_in_order(gateway: Served, tag: str) -> None:
    """SSE, NDJSON, both sockets and gRPC side by side; each checks the numbers of the tool and those of the gateway."""

    async def by_sse(name: str) -> tuple[list[Any], list[int]]:
        async with client.stream("GET", f"/v1/tools/numbered/stream?tag={name}&count={CHUNKS}") as response:
            story = await read_sse(response)
        assert story.end is not None
        assert (story.end["status"], story.end["chunks"]) == ("ok", CHUNKS)
        return story.chunks, story.numbers

    async def by_ndjson(name: str) -> tuple[list[Any], list[int]]:
        body, headers = {"tag": name, "count": CHUNKS}, {"Accept": "application/x-ndjson"}
        async with client.stream("POST", "/v1/tools/numbered/stream", json=body, headers=headers) as response:
            story = await read_ndjson(response)
        assert story.end is not None
        return story.chunks, story.numbers

    async def by_plain_socket(name: str) -> tuple[list[Any], list[int]]:
        async with websockets.connect(f"{sockets}/v1/tools/numbered/ws?tag={name}&count={CHUNKS}") as socket:
            events = [json.loads(message) async for message in socket]
        chunks = [event for event in events if event["event"] == "message"]
        return [chunk["data"] for chunk in chunks], [int(chunk["id"].rpartition(".")[2]) for chunk in chunks]

    async def by_socket(name: str) -> tuple[list[Any], list[int]]:
        """One socket for all of these: its frames are told apart by their id."""
        done = asyncio.get_running_loop().create_future()
        frames[name] = ([], [], done)
        subscribe = {"type": "subscribe", "id": name, "payload": {"tool": "numbered", "args": {"tag": name, "count": CHUNKS}}}
        await shared.send(json.dumps(subscribe))
        await done
        return frames[name][:2]

    async def read_shared() -> None:
        async for message in shared:
            frame = json.loads(message)
            if frame["type"] == "next":
                frames[frame["id"]][0].append(frame["payload"])
                frames[frame["id"]][1].append(int(frame["eid"].rpartition(".")[2]))
            elif frame["type"] in ("complete", "error"):
                frames[frame["id"]][2].set_result(frame)

    async def by_grpc(name: str) -> tuple[list[Any], list[int]]:
        stream = stub.ExecuteStreamingTool(tool_request("load", "numbered", tag=name, count=CHUNKS))
        chunks = [chunk async for chunk in stream]
        assert chunks.pop().is_final
        return [json.loads(chunk.data) for chunk in chunks], [int(chunk.chunk_id.rpartition("-")[2]) for chunk in chunks]

    async def check(name: str, read: Callable[[str], Awaitable[tuple[list[Any], list[int]]]]) -> None:
        chunks, numbers = await read(name)
        assert numbers == list(range(1, CHUNKS + 1)), name
        assert chunks == [{"stream": name, "n": number} for number in range(1, CHUNKS + 1)], name

    sockets = f"ws://127.0.0.1:{gateway.port}"
    frames: dict[str, tuple[list[Any], list[int], asyncio.Future[Any]]] = {}
    ways = (by_sse, by_ndjson, by_plain_socket, by_socket, by_grpc)
    subprotocol = [websockets.Subprotocol("snakepit.gateway.v1")]
    async with (
        gateway.http() as client,
        bridge(gateway) as stub,
        websockets.connect(f"{sockets}/v1/ws", subprotocols=subprotocol) as shared,
        asyncio.TaskGroup() as tasks,
    ):
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="load"))
        await shared.send('{"type":"connection_init"}')
        assert json.loads(await shared.recv())["type"] == "connection_ack"
        reader = tasks.create_task(read_shared())
        async with asyncio.TaskGroup() as streams:
            for number in range(STREAMS):
                way = ways[number % len(ways)]
                streams.create_task(check(f"{tag}-{way.__name__}-{number}", way))
        reader.cancel()
    await until(gateway.is_idle, "free workers")


class SlowReader:
    """Reads an NDJSON stream from the socket itself, as fast as it is told; counts rows in what it has read."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._rest = b""
        self.read_bytes = 0
        self.totals: list[int] = []
        self.end: dict[str, Any] | None = None

    async def read(self, limit: int) -> bool:
        """Read at most `limit` bytes; return False at the end."""
        data = await self._reader.read(limit)
        self.read_bytes += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b'{"seq"'):
                # The head of the chunk is enough to see that none is missing: parsing all would be this test's load.
                self.totals.append(int(line[: line.index(b',"data":[')].rpartition(b":")[2]))
            elif line.startswith(b'{"end"'):
                self.end = json.loads(line)["end"]
        return bool(data) and self.end is None


@pytest.mark.timeout(120)
async def test_dataset_to_a_slow_reader_keeps_memory_flat_and_loses_nothing(serve: Callable[..., Served]) -> None:
    """80 MB through a reader of 1 MB/s that then stops altogether, and at last takes the rest."""
    rows, rows_a_chunk = 400_000, 1000
    gateway = serve(str(DEMO_ADAPTER), "--pool-size", "1")
    warm = gateway.client.get(f"/v1/tools/generate_dataset/stream?rows={rows_a_chunk}")
    assert warm.status_code == 200
    (worker,) = gateway.workers()
    before = {pid: rss_bytes(pid) for pid in (gateway.pid, worker)}
    highest = dict(before)

    def measure() -> None:
        for pid in highest:
            highest[pid] = max(highest[pid], rss_bytes(pid))

    raw, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=64 * 1024)
    path = f"/v1/tools/generate_dataset/stream?rows={rows}&chunk_size={rows_a_chunk}"
    # HTTP/1.0: the body comes without chunked framing, up to the end of the connection.
    writer.write(f"GET {path} HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n".encode())
    assert b"200 OK" in (await raw.readuntil(b"\r\n\r\n"))
    slow = SlowReader(raw)
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < 3:
        if slow.read_bytes < elapsed * MEBIBYTE:
            await slow.read(64 * 1024)
        else:
            await asyncio.sleep(0.01)
        measure()
    await stopped_growing(measure, highest)
    held = len(slow.totals)
    assert slow.end is None
    assert held < rows // rows_a_chunk // 2, "the reader was not slow"
    while await slow.read(MEBIBYTE):
        measure()
    writer.close()
    assert slow.totals == list(range(rows_a_chunk, rows + 1, rows_a_chunk))
    assert slow.end is not None
    assert slow.end["status"] == "ok"
    growth = {pid: (highest[pid] - before[pid]) / MEBIBYTE for pid in before}
    assert growth[gateway.pid] < 24, growth
    assert growth[worker] < 24, growth


async def stopped_growing(measure: Callable[[], None], highest: dict[int, int], quiet_s: float = 1.0) -> None:
    """Return when the memory has had no new height for a while: with nobody reading, everything stands still."""
    last, since = dict(highest), time.monotonic()
    deadline = since + 20
    while time.monotonic() - since < quiet_s:
        measure()
        if highest != last:
            last, since = dict(highest), time.monotonic()
        assert since < deadline, "memory grows on while nobody reads"
        await asyncio.sleep(0.02)


async def test_reader_that_makes_no_progress_is_cut(serve: Callable[..., Served]) -> None:
    gateway = serve(str(DEMO_ADAPTER), "--pool-size", "1", settings="[server]\nwrite_timeout_s = 0.5\n")
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1)
    writer.write(b"GET /v1/tools/generate_dataset/stream?rows=100000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: gateway.pools()["default"]["in_flight"] == 1, "the call")
    await until(gateway.is_idle, "the call's end")
    async with websockets.connect(
        f"ws://127.0.0.1:{gateway.port}/v1/tools/generate_dataset/ws?rows=100000000", max_queue=1, close_timeout=0.1
    ):
        await until(lambda: gateway.pools()["default"]["in_flight"] == 1, "the socket's call")
        await until(gateway.is_idle, "the call's end")
    writer.close()


async def test_other_streams_go_on_beside_a_stalled_one(gateway: Served, tag: str) -> None:
    """Both run on workers that run both at once, so the stalled one holds up neither the worker nor the connection."""
    stalled = []
    for _ in range(4):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1)
        request = f"GET /v1/tools/heavy/stream?tag={tag}&chunks=100000&size=20000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(request.encode())
        stalled.append(writer)
    await until(lambda: gateway.journal(tag).count("start") == 4, "the stalled streams")
    async with gateway.http() as client:
        answers = [await whole(client, f"/v1/tools/numbered/stream?tag={tag}-lively&count=5000") for _ in range(4)]
    assert answers == [list(range(1, 5001))] * 4
    for writer in stalled:
        writer.transport.abort()
    await until(gateway.is_idle, "free workers")


async def whole(client: httpx.AsyncClient, path: str) -> list[int]:
    async with client.stream("GET", path) as response:
        return [chunk["n"] for chunk in (await read_sse(response)).chunks]
