"""What the tests of gRPC services share: a server, and a channel to it. The descriptors are compiled.py's, the server library.py's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.transport import open_transport
from gateway.transport.base import Channel
from tests.endpoints.conftest import cut_what_is_left
from tests.services import library

__all__ = ["cut_what_is_left"]


@pytest.fixture
async def serve_library() -> AsyncIterator[Callable[..., Awaitable[library.Server]]]:
    """`await serve_library(address="127.0.0.1:0", with_reflection=True)` -> a server, stopped at the end."""
    servers: list[library.Server] = []

    async def serve(address: str = "127.0.0.1:0", **options: object) -> library.Server:
        server = await library.serve(address, **options)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield serve
    for server in servers:
        await server.stop()


@pytest.fixture
async def library_server(serve_library: Callable[..., Awaitable[library.Server]]) -> library.Server:
    """A server with reflection."""
    return await serve_library()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[str], Channel]]:
    """`connect(address)` -> a channel, closed at the end."""
    channels: list[Channel] = []
    async with asyncio.TaskGroup() as tasks:
        transport = open_transport("lane", tasks)

        def connect(address: str) -> Channel:
            channel = transport.connect(address)
            channels.append(channel)
            return channel

        yield connect
        for channel in channels:
            await channel.aclose()
