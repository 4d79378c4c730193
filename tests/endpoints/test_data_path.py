"""What a batch costs on its way from the worker's call to the socket, counted and not timed.

A change that does something for each chunk, or wakes a task for each event, turns these red.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.direct import DirectExchange
from gateway.server import LinkedWebSocket
from tests.conftest import FakeCall, Running, until
from tests.endpoints.conftest import RawStream, kept
from tests.endpoints.test_websocket import joined

COUNT = "/v1/tools/count/stream"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts a direct answer's writes and ends, a WebSocket's writes past ASGI, and what uvicorn's own way sends."""
    counted: Counter[str] = Counter()

    def count(kind: type, name: str) -> None:
        original = getattr(kind, name)

        def counting(self: object, *arguments: object) -> object:
            counted[name] += 1
            return original(self, *arguments)

        monkeypatch.setattr(kind, name, counting)

    count(DirectExchange, "write")
    count(DirectExchange, "finish")
    count(LinkedWebSocket, "write_messages")
    count(RequestResponseCycle, "send")
    return counted


async def test_a_thousand_chunks_that_arrive_together_are_one_write(running: Running, writes: Counter[str]) -> None:
    async with running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        call.send(0)
        lines = response.aiter_lines()
        async for line in lines:
            if line == "data: 0":
                break
        writes.clear()
        call.send(*range(1, 1001))
        assert writes == {"write": 1}
        async for line in lines:
            if line == "data: 1000":
                break
        assert writes == {"write": 1}
        call.end()


async def test_events_that_come_alone_wake_no_task(running: Running, writes: Counter[str]) -> None:
    async with running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        call.send(0)
        lines = response.aiter_lines()
        async for line in lines:
            if line == "data: 0":
                break
        writes.clear()
        for number in range(1, 11):
            # Written before control returns to the loop.
            call.send(number)
            assert writes == {"write": number}
        call.end()
        async for line in lines:
            if line == "event: end":
                break
    assert writes == {"write": 10, "finish": 1}


async def test_hundreds_of_chunks_are_one_write_on_a_websocket(running: Running, writes: Counter[str]) -> None:
    async with joined(running) as client:
        await client.say("subscribe", id="a", payload={"tool": "count"})
        call = await running.pool.next_call()
        call.send(0)
        await client.hear_until("next")
        writes.clear()
        call.send(*range(500))
        assert writes == {"write_messages": 1}
        for _ in range(500):
            await client.hear()
        assert writes == {"write_messages": 1}


async def test_a_stream_costs_no_task(running: Running) -> None:
    before = len(asyncio.all_tasks())
    async with running.client.stream("GET", COUNT) as response:
        call = await running.pool.next_call()
        call.send(0)
        async for line in response.aiter_lines():
            if line == "data: 0":
                break
        assert len(asyncio.all_tasks()) == before
        call.end()
    await until(lambda: len(asyncio.all_tasks()) <= before)


@contextmanager
def garbage() -> Iterator[set[str]]:
    """Collect what the block leaves to the garbage collector: the classes of ours among it, known after the block."""
    found: set[str] = set()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found |= {type(item).__qualname__ for item in gc.garbage if type(item).__module__.startswith("gateway.")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_stream_that_is_over_leaves_nothing_to_the_garbage_collector(running: Running, is_kept: bool) -> None:
    """A cycle of objects for each request would be a pause of the whole loop for each few thousand."""

    def script(call: FakeCall) -> None:
        call.send(1)
        call.end()

    async def ask(stream: RawStream) -> None:
        stream.writer.write(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % COUNT.encode())
        await stream.until(b"0\r\n\r\n")

    async def connected() -> RawStream:
        return RawStream(*await asyncio.open_connection("127.0.0.1", running.port))

    running.pool.script = script
    stream = kept(await connected())
    await ask(stream)
    with garbage() as found:
        for _ in range(3):
            if is_kept:
                await ask(stream)
            else:
                another = await connected()
                await ask(another)
                before = len(running.http.server_state.connections)
                another.cut()
                await until(lambda before=before: len(running.http.server_state.connections) < before)
    assert found == set()
