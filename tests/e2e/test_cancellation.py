"""Whoever leaves, however: the tool's `finally` runs, its worker is free again, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import websockets

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.harness import Served, bridge, descriptors, events_of, rss_bytes, threads, tool_request, until

Leave = Callable[[Served, str, str], contextlib.AbstractAsyncContextManager[None]]

# The sync tool ends at its next yield, the async one at its await; the silent one has yielded nothing at all.
TOOLS = ("endless", "endless_async", "silent")


@contextlib.asynccontextmanager
async def killed_curl(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    url = f"{gateway.url}/v1/tools/{tool}/stream?tag={tag}"
    process = await asyncio.create_subprocess_exec("curl", "-sN", url, stdout=DEVNULL)
    yield
    process.send_signal(signal.SIGKILL)
    await process.wait()


@contextlib.asynccontextmanager
async def closed_response(gateway: Served, tool: str, tag: str, accept: str = "text/event-stream") -> AsyncIterator[None]:
    # Straight to the socket: before the first chunk there is no response that a client library would return.
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"GET /v1/tools/{tool}/stream?tag={tag} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())
    yield
    writer.close()
    await writer.wait_closed()
    del reader


def closed_lines(gateway: Served, tool: str, tag: str) -> contextlib.AbstractAsyncContextManager[None]:
    return closed_response(gateway, tool, tag, "application/x-ndjson")


def closed_collector(gateway: Served, tool: str, tag: str) -> contextlib.AbstractAsyncContextManager[None]:
    return closed_response(gateway, tool, tag, "application/json")


@contextlib.asynccontextmanager
async def closed_plain_socket(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/tools/{tool}/ws?tag={tag}"):
        yield


@contextlib.asynccontextmanager
async def aborted_plain_socket(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/tools/{tool}/ws?tag={tag}") as socket:
        yield
        socket.transport.abort()


@contextlib.asynccontextmanager
async def subscribed(gateway: Served, tool: str, tag: str) -> AsyncIterator[websockets.ClientConnection]:
    url = f"ws://127.0.0.1:{gateway.port}/v1/ws"
    async with websockets.connect(url, subprotocols=[websockets.Subprotocol("snakepit.gateway.v1")]) as socket:
        await socket.send('{"type":"connection_init"}')
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"tool": tool, "args": {"tag": tag}}}))
        yield socket


@contextlib.asynccontextmanager
async def closed_socket(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with subscribed(gateway, tool, tag):
        yield


@contextlib.asynccontextmanager
async def completed_subscription(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with subscribed(gateway, tool, tag) as socket:
        yield
        await socket.send('{"type":"complete","id":"a"}')
        await until(lambda: "finally" in gateway.journal(tag), "the tool's end while the socket is open")


@contextlib.asynccontextmanager
async def cancelled_subscription(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with subscribed(gateway, tool, tag) as socket:
        yield
        await socket.send('{"type":"cancel","id":"a"}')
        async for message in socket:
            frame = json.loads(message)
            if frame["type"] == "complete":
                assert frame["payload"]["status"] == "cancelled"
                return


@contextlib.asynccontextmanager
async def cancelled_grpc_call(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with bridge(gateway) as stub:
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="cancels"))
        call = stub.ExecuteStreamingTool(tool_request("cancels", tool, tag=tag))
        reading = asyncio.ensure_future(drained(call))
        yield
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def drained(call: AsyncIterator[pb.ToolChunk]) -> None:
    async for _ in call:
        pass


@contextlib.asynccontextmanager
async def gone_grpc_client(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with bridge(gateway) as stub:
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="cancels"))
        reading = asyncio.ensure_future(drained(stub.ExecuteStreamingTool(tool_request("cancels", tool, tag=tag))))
        yield
    with pytest.raises(asyncio.CancelledError):
        await reading


@contextlib.asynccontextmanager
async def deleted_run(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with cancelled_over_http(gateway, tool, tag, "DELETE", ""):
        yield


@contextlib.asynccontextmanager
async def posted_cancel(gateway: Served, tool: str, tag: str) -> AsyncIterator[None]:
    async with cancelled_over_http(gateway, tool, tag, "POST", "/cancel"):
        yield


@contextlib.asynccontextmanager
async def cancelled_over_http(gateway: Served, tool: str, tag: str, method: str, path: str) -> AsyncIterator[None]:
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/{tool}/stream?tag={tag}") as response:
        run = response.headers["content-location"].removesuffix("/events")
        yield
        assert (await client.request(method, run + path)).status_code == 200
        ends = [event.json() async for event in events_of(response) if event.event == "end"]
        assert [end["status"] for end in ends] == ["cancelled"]
        again = await client.request(method, run + path)
        assert (again.status_code, again.json()["state"]) == (200, "cancelled")


WAYS: tuple[Leave, ...] = (
    killed_curl,
    closed_response,
    closed_lines,
    closed_collector,
    closed_plain_socket,
    aborted_plain_socket,
    closed_socket,
    completed_subscription,
    cancelled_subscription,
    cancelled_grpc_call,
    gone_grpc_client,
    deleted_run,
    posted_cancel,
)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_leaving_ends_the_tool_and_frees_its_worker(gateway: Served, leave: Leave, tool: str, tag: str) -> None:
    async with leave(gateway, tool, tag):
        await until(lambda: "start" in gateway.journal(tag), "the tool's start")
    await until(lambda: "cleanup" in gateway.journal(tag), "the tool's cleanup")
    await until(gateway.is_idle, "free workers")
    assert gateway.journal(tag) == ["start", "finally", "cleanup"]


async def test_unary_call_left_by_its_client_is_cancelled(gateway: Served, tag: str) -> None:
    async with gateway.http() as client:
        call = asyncio.ensure_future(client.post("/v1/tools/wait/call", json={"tag": tag}))
        await until(lambda: "start" in gateway.journal(tag), "the tool's start")
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    await until(lambda: gateway.journal(tag) == ["start", "finally", "cleanup"], "the tool's end")
    await until(gateway.is_idle, "free workers")


async def test_request_left_in_the_queue_never_starts_its_tool(gateway: Served, tag: str) -> None:
    """The demo pool has two workers with one place each: the third request waits."""
    async with gateway.http() as client, contextlib.AsyncExitStack() as busy:
        for _ in range(2):
            await busy.enter_async_context(client.stream("GET", "/v1/tools/infinite_tokens/stream?interval_ms=20"))
        waiting = asyncio.ensure_future(client.get("/v1/tools/stream_numbers/stream?count=3"))
        await until(lambda: gateway.pools()["demo"]["queued"] == 1, "a queued request")
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await until(lambda: gateway.pools()["demo"]["queued"] == 0, "an empty queue")
        assert gateway.pools()["demo"]["in_flight"] == 2
    await until(gateway.is_idle, "free workers")


@pytest.mark.parametrize("tool", ["heavy", "numbered"])
async def test_client_that_leaves_during_a_blocked_write_is_noticed(gateway: Served, tool: str, tag: str) -> None:
    arguments = {"heavy": "chunks=100000&size=10000", "numbered": "count=10000000"}[tool]
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1)
    writer.write(f"GET /v1/tools/{tool}/stream?tag={tag}&{arguments} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: "start" in gateway.journal(tag), "the tool's start")
    writer.transport.abort()
    await until(lambda: gateway.journal(tag)[-1] == "cleanup", "the tool's end")
    await until(gateway.is_idle, "free workers")


async def test_demo_tools_free_their_only_worker(gateway: Served) -> None:
    async with gateway.http() as client:
        for tool in ("infinite_stream", "infinite_tokens") * 4:
            async with client.stream("GET", f"/v1/tools/{tool}/stream?interval_ms=1") as response:
                async for event in events_of(response):
                    if event.event == "message":
                        break
            await until(gateway.is_idle, "free workers")
        answer = await client.post("/v1/tools/add/call", json={"a": 1, "b": 2})
    assert answer.json()["result"] == 3


# The journal pool's `concurrency`.
JOURNAL_PLACES = 16


@pytest.mark.timeout(180)
async def test_500_cancels_leave_nothing_behind(gateway: Served) -> None:
    """Slots, descriptors, threads, memory: as before, in the gateway and in its workers."""
    workers = gateway.workers()
    await cancel_many(gateway, 100, "warm-up")
    before = await at_rest(gateway, workers)
    await cancel_many(gateway, 500, "storm")
    after = await at_rest(gateway, workers)
    for pid in (gateway.pid, *workers):
        assert after.descriptors[pid] <= before.descriptors[pid] + 2
        # A worker has a thread for each place that was ever taken at the same time as the others, and three more.
        assert after.threads[pid] <= (before.threads[pid] + 2 if pid == gateway.pid else JOURNAL_PLACES + 4)
        assert after.rss[pid] <= before.rss[pid] + 8 * 1024 * 1024
    assert gateway.journal("storm").count("start") == gateway.journal("storm").count("finally")
    assert gateway.workers() == workers


class Remains:
    """What processes hold."""

    def __init__(self, pids: list[int]) -> None:
        self.descriptors = {pid: descriptors(pid) for pid in pids}
        self.threads = {pid: threads(pid) for pid in pids}
        self.rss = {pid: rss_bytes(pid) for pid in pids}


async def at_rest(gateway: Served, workers: list[int]) -> Remains:
    await until(gateway.is_idle, "free workers")
    return Remains([gateway.pid, *workers])


async def cancel_many(gateway: Served, count: int, tag: str) -> None:
    """Open and leave streams, ten at a time, of every kind that is quick to open."""
    turns = iter(range(count))

    async def one_after_another(client: httpx.AsyncClient) -> None:
        for turn in turns:
            tool = TOOLS[turn % 2]
            way = turn % 5
            if way < 3:
                accept = ("text/event-stream", "application/x-ndjson", "text/event-stream")[way]
                async with client.stream("GET", f"/v1/tools/{tool}/stream?tag={tag}", headers={"Accept": accept}) as response:
                    async for _ in response.aiter_bytes():
                        break
            elif way == 3:
                async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/tools/{tool}/ws?tag={tag}") as socket:
                    await socket.recv()
            else:
                call = stub.ExecuteStreamingTool(tool_request("storm", tool, tag=tag))
                await call.read()
                call.cancel()

    async with bridge(gateway) as stub, gateway.http() as client, asyncio.TaskGroup() as tasks:
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="storm"))
        for _ in range(10):
            tasks.create_task(one_after_another(client))


async def test_curl_killed_after_its_first_chunk_stops_the_demo_tool(gateway: Served) -> None:
    url = f"{gateway.url}/v1/tools/infinite_stream/stream?interval_ms=5"
    process = await asyncio.create_subprocess_exec("curl", "-sN", url, stdout=PIPE)
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b'data: {"number"'):
            break
    assert gateway.pools()["demo"]["in_flight"] == 1
    process.kill()
    await process.wait()
    await until(gateway.is_idle, "free workers")
