"""The Python client through a network that breaks, against real workers, which say what happened to them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.client import AsyncClient, Client, Resume
from gateway.client.errors import RunCancelled
from tests.e2e.harness import Served, until
from tests.e2e.proxy import proxied

QUICK = Resume(first_s=0.05, limit_s=0.5, total_s=20.0)


async def test_a_stream_that_is_cut_again_and_again_gives_every_chunk_once(gateway: Served, tag: str) -> None:
    async with proxied(gateway.port) as proxy, AsyncClient(proxy.url, resume=QUICK) as client:
        seen: list[int] = []

        def callback(chunk: Any) -> None:
            seen.append(chunk["n"])
            if chunk["n"] in (20, 70, 150):
                proxy.cut()

        end = await client.execute_stream("paced", {"tag": tag, "count": 200, "interval_ms": 2}, callback)
    assert end is not None
    assert (seen, end.chunks, proxy.accepted >= 4) == (list(range(1, 201)), 200, True)
    assert gateway.journal(tag) == ["start", "cleanup"]


async def test_a_flood_that_is_cut_gives_every_chunk_once_on_a_thread_too(gateway: Served, tag: str) -> None:
    async with proxied(gateway.port) as proxy:
        loop = asyncio.get_running_loop()

        def read() -> list[int]:
            numbers = []
            with Client(proxy.url, resume=QUICK) as client:
                for chunk in client.stream("numbered", {"tag": tag, "count": 20_000}):
                    numbers.append(chunk["n"])
                    if chunk["n"] % 5_000 == 1:
                        loop.call_soon_threadsafe(proxy.cut)
            return numbers

        assert await asyncio.to_thread(read) == list(range(1, 20_001))
    assert gateway.journal(tag).count("start") == 1


async def test_a_cut_before_the_first_byte_never_runs_the_tool_twice(gateway: Served, tag: str) -> None:
    async with proxied(gateway.port) as proxy, AsyncClient(proxy.url, resume=QUICK) as client:
        seen: list[Any] = []
        reading = asyncio.create_task(client.execute_stream("held", {"tag": tag, "count": 2, "gate": 1}, seen.append))
        await until(lambda: gateway.journal(tag) == ["start"], "the tool's start")
        proxy.cut()
        await until(lambda: proxy.accepted == 2, "the client's second attempt")
        gateway.open_gate(tag, 1)
        await reading
    assert (seen, gateway.journal(tag).count("start")) == ([{"n": 1}, {"n": 2}], 1)


async def test_a_gateway_that_cannot_be_reached_for_a_while_is_waited_for(gateway: Served, tag: str) -> None:
    async with proxied(gateway.port) as proxy, AsyncClient(proxy.url, resume=QUICK) as client:
        seen: list[Any] = []
        reading = asyncio.create_task(client.execute_stream("gated", {"tag": tag, "chunks": 2}, seen.append))
        await until(lambda: seen, "the first chunk")
        proxy.refuse()
        proxy.cut()
        gateway.open_gate(tag, 2)
        await until(lambda: "done" in gateway.journal(tag), "the tool to be done")
        await proxy.restore()
        await reading
    assert [chunk["n"] for chunk in seen] == [1, 2]


async def test_who_comes_back_too_late_is_told_that_the_run_was_cancelled(gateway: Served, tag: str) -> None:
    async with proxied(gateway.port) as proxy, AsyncClient(proxy.url, resume=QUICK) as client:

        async def read_and_be_away() -> None:
            async for _ in client.stream("endless", {"tag": tag}, on_disconnect="grace:100ms"):
                proxy.refuse()
                proxy.cut()
                await until(lambda: "finally" in gateway.journal(tag), "the end of the grace")
                await proxy.restore()

        with pytest.raises(RunCancelled, match="nobody came back in time"):
            await read_and_be_away()


@pytest.mark.parametrize("tool", ["endless", "endless_async"])
async def test_leaving_a_loop_runs_the_tools_finally(gateway: Served, tag: str, tool: str) -> None:
    def read() -> None:
        with Client(gateway.url) as client:
            for _ in client.stream(tool, {"tag": tag}):
                break

    await asyncio.to_thread(read)
    await until(lambda: gateway.journal(tag)[-2:] == ["finally", "cleanup"], "the tool's end")


async def test_a_silent_tool_hears_of_its_reader_leaving(gateway: Served, tag: str) -> None:
    async with AsyncClient(gateway.url) as client:
        stream = await client.stream("silent", {"tag": tag}).open()
        assert stream.run_id is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(stream)), 0.1)
    await until(lambda: "finally" in gateway.journal(tag), "the tool's end")


async def test_bytes_and_rows_arrive_as_values(gateway: Served) -> None:
    async with AsyncClient(gateway.url) as client:
        chunks = [chunk async for chunk in client.stream("generate_dataset", {"rows": 20, "chunk_size": 10})]
    assert [(chunk["rows"], len(chunk["data"]), len(chunk["data"][0])) for chunk in chunks] == [(10, 10, 10), (10, 10, 10)]
