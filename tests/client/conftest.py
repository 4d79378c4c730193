"""Both clients of a gateway that serves over real sockets, the one without an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import pytest

from gateway.client import AsyncClient, Client
from tests.conftest import Running, within

Value = TypeVar("Value")


@pytest.fixture
async def client(running: Running) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(running.url) as client:
        yield client


@pytest.fixture
def blocking(running: Running) -> Iterator[Client]:
    with Client(running.url) as client:
        yield client


async def threaded(function: Callable[[], Value]) -> Value:
    """Return what a function returns that blocks, while the gateway in this event loop goes on."""
    return await within(asyncio.to_thread(function))  # type: ignore[no-any-return]
