"""Methods over WebSocket with a gateway as a process of its own, of both builds: the compiled transport sends here, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import Served, served
from tests.services import library
from tests.services.test_sockets import LIBRARY, Client, flood, payloads


@pytest.fixture(params=BUILDS)
async def gateway(request: pytest.FixtureRequest, library_server: library.Server, tmp_path: Path) -> AsyncIterator[Served]:
    packages = packages_of(request.param)
    manager = served(tmp_path, settings=f'[[services]]\nname = "library"\naddress = "{library_server.address}"\n', packages=packages)
    # It waits for the gateway, which waits for the server in this loop.
    started = await asyncio.to_thread(manager.__enter__)
    yield started
    await asyncio.to_thread(manager.__exit__, None, None, None)


@asynccontextmanager
async def calling(gateway: Served, method: str) -> AsyncIterator[Client]:
    url = f"ws://127.0.0.1:{gateway.port}/v1/rpc/{LIBRARY}/{method}/ws"
    async with connect(url, compression=None, proxy=None) as socket:
        yield Client(socket)


async def test_all_kinds_floods_mistakes_and_clients_that_vanish(gateway: Served, library_server: library.Server) -> None:
    seen = library_server.library
    async with calling(gateway, "Chat") as client:
        for number in range(1, 201):
            await client.say("send", payload={"text": "a"})
            assert (await client.hear_until("next"))[-1]["payload"] == {"text": "A", "number": number}
        await client.say("end")
        assert (await client.rest())[-1]["payload"]["status"] == "ok"
    async with calling(gateway, "AddBooks") as client:
        for number in range(3_000):
            await client.say("send", payload={"name": f"{number}", "title": "x" * 3_000})
        await client.say("end")
        assert payloads(await client.rest())[0]["count"] == 3_000
    async with calling(gateway, "Chat") as client:
        await client.say("send", payload={"texd": "x"})
        assert (await client.rest())[-1]["payload"]["type"] == "/problems/invalid-message"
    async with calling(gateway, "Chat") as client:
        await client.say("send", payload={"text": "bye"})
        assert (await client.rest())[-1]["payload"]["status"] == "ok"
    for method, message in (("Count", {"to": 2}), ("GetBook", {"name": "shelves/1/books/a"})):
        async with calling(gateway, method) as client:
            await client.say("send", payload=message)
            assert (await client.rest())[-1]["payload"]["status"] == "ok"
    seen.gate = asyncio.Event()
    async with calling(gateway, "AddBooks") as client:
        flooding = asyncio.ensure_future(flood(client))
        await until_stuck(client, gateway)
        client.socket.transport.abort()
        await flooding
        await seen.until(lambda: not seen.open["AddBooks"])
    assert seen.cancelled[-1] == "AddBooks"


async def until_stuck(client: Client, gateway: Served) -> None:
    """Wait until nothing more is taken of what the client sends, whatever else goes through meanwhile."""
    async with gateway.http() as http:
        size = -1
        while size <= 0 or client.socket.transport.get_write_buffer_size() != size:
            size = client.socket.transport.get_write_buffer_size()
            for _ in range(50):
                await http.get("/livez")
