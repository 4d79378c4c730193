"""The proxy does to connections what its methods say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.e2e.proxy import Proxy, proxied


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def opened(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def answer(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], text: bytes) -> bytes:
    stream[1].write(text)
    async with asyncio.timeout(10):
        return await stream[0].readexactly(len(text))


async def test_bytes_pass_and_the_end_of_one_side_is_the_others(echo: int) -> None:
    async with proxied(echo) as proxy:
        stream = await opened(proxy)
        assert await answer(stream, b"x" * 300_000) == b"x" * 300_000
        stream[1].write_eof()
        assert await stream[0].read() == b""
        stream[1].close()


async def test_cut_resets_connections_and_takes_new_ones(echo: int) -> None:
    async with proxied(echo) as proxy:
        stream = await opened(proxy)
        await answer(stream, b"a")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await stream[0].readexactly(1)
        again = await opened(proxy)
        assert await answer(again, b"b") == b"b"
        assert proxy.accepted == 2
        for _, writer in (stream, again):
            writer.close()


async def test_refuse_refuses_until_restored_and_leaves_what_is_open(echo: int) -> None:
    async with proxied(echo) as proxy:
        stream = await opened(proxy)
        await answer(stream, b"a")
        for _ in range(2):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                await opened(proxy)
            assert await answer(stream, b"b") == b"b"
            await proxy.restore()
            again = await opened(proxy)
            assert await answer(again, b"c") == b"c"
            again[1].close()
        stream[1].close()


async def test_stall_holds_everything_until_restored(echo: int) -> None:
    async with proxied(echo) as proxy, asyncio.TaskGroup() as tasks:
        held, free = await opened(proxy), await asyncio.open_connection("127.0.0.1", echo)
        await answer(held, b"a")
        proxy.stall()
        answering = tasks.create_task(answer(held, b"b"))
        # The server itself answers, so that the proxied answer would have had its time.
        for _ in range(20):
            assert await answer(free, b"c") == b"c"
        assert not answering.done()
        await proxy.restore()
        assert await answering == b"b"
        for _, writer in (held, free):
            writer.close()


async def test_a_way_is_late_in_crumbs_and_changed_as_told_and_the_other_is_not(echo: int) -> None:
    async with proxied(echo) as proxy:
        stream = await opened(proxy)
        await answer(stream, b"a")
        proxy.up.corrupt_every, proxy.up.piece_bytes, proxy.up.delay_s = 3, 2, 0.001
        stream[1].write(bytes(8))
        assert await stream[0].readexactly(8) == bytes((0, 0, 255, 0, 0, 255, 0, 0))
        await proxy.restore()
        assert await answer(stream, bytes(8)) == bytes(8)
        proxy.down.delay_s = 0.2
        began = asyncio.get_running_loop().time()
        assert await answer(stream, b"b") == b"b"
        assert asyncio.get_running_loop().time() - began >= 0.2
        stream[1].close()


async def test_a_way_that_ends_leaves_the_other_open() -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        heard.put_nowait(await reader.readexactly(1))
        heard.put_nowait(await reader.read())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, proxied(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await opened(proxy)
        assert await reader.readexactly(5) == b"hello"
        proxy.down.end()
        assert await reader.read() == b""
        writer.write(b"x")
        assert await heard.get() == b"x"
        writer.close()
        assert await heard.get() == b""


async def test_the_end_of_the_block_ends_what_is_stalled(echo: int) -> None:
    async with proxied(echo) as proxy:
        stream = await opened(proxy)
        await answer(stream, b"a")
        proxy.stall()
        stream[1].write(b"b")
    with pytest.raises(ConnectionResetError):
        await stream[0].readexactly(1)
    stream[1].close()
