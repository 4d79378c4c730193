"""A gateway as a process of its own, of both builds, in front of a real server: what the compiled modules are held against, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import Served, served
from tests.endpoints.conftest import messages, problem
from tests.services import library

RPC = "/v1/rpc/test.library.v1.Library"


@pytest.fixture(params=BUILDS)
async def gateway(request: pytest.FixtureRequest, library_server: library.Server, tmp_path: Path) -> AsyncIterator[Served]:
    packages = packages_of(request.param)
    settings = f'[[services]]\nname = "library"\naddress = "{library_server.address}"\nheaders_out = ["x-initial", "x-trailing"]\n'
    # It waits for the gateway, which waits for the server in this loop.
    manager = served(tmp_path, settings=settings, packages=packages)
    started = await asyncio.to_thread(manager.__enter__)
    yield started
    await asyncio.to_thread(manager.__exit__, None, None, None)


async def test_streams_answers_errors_and_cancels(gateway: Served, library_server: library.Server) -> None:
    async with gateway.http() as client:
        stream = await client.post(f"{RPC}/Count", json={"to": 3000, "size": 10}, headers={"Accept": "text/event-stream"})
        numbers = [data["number"] for name, data in messages(stream.content) if name == "message"]
        assert numbers == list(range(1, 3001))
        book = await client.get("/v1/library/shelves/1/books/emma")
        assert (book.status_code, book.json()["pages"]) == (200, "474")
        said = await client.post(f"{RPC}/Headers", json={})
        assert (said.headers["x-initial"], said.headers["x-trailing"]) == ("first", "last")
        problem(await client.post(f"{RPC}/Fail", json={"code": 9, "message": "no", "withDetails": True}), 400, "rpc-error")
        problem(await client.post(f"{RPC}/GetBook", json={"nam": 1}), 400, "invalid-message")
        problem(await client.post(f"{RPC}/Chat", json={}), 501, "rpc-needs-socket")
        async with client.stream("GET", f"{RPC}/WatchShelf", headers={"Accept": "text/event-stream"}) as watch:
            async for line in watch.aiter_lines():
                if '"sequence":"2"' in line:
                    break
        await library_server.library.until(lambda: library_server.library.cancelled == ["WatchShelf"])
