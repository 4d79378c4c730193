"""What a call over a socket leaves is freed at once, with no need for the garbage collector; see endpoints/test_release.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import Running, Serve
from tests.endpoints.test_release import left_behind
from tests.services import library
from tests.services.test_http import ready
from tests.services.test_sockets import LIBRARY, calling, many


async def ended(running: Running) -> None:
    async with calling(running, "Chat") as client:
        await client.say("send", payload={"text": "x"})
        await client.say("end")
        await client.rest()
        await client.closed()


async def left(running: Running) -> None:
    async with calling(running, "Chat") as client:
        await client.say("send", payload={"text": "x"})
        await client.hear_until("next")


async def refused(running: Running) -> None:
    async with calling(running, "Chat") as client:
        await client.say("send", payload={"texd": "x"})
        await client.rest()
        await client.closed()


async def single(running: Running) -> None:
    async with calling(running, "Count") as client:
        await client.say("send", payload={"to": 2})
        await client.rest()
        await client.closed()


async def among_others(running: Running) -> None:
    async with many(running) as client:
        await client.say("subscribe", id="a", payload={"tool": f"{LIBRARY}/Chat"})
        await client.say("send", id="a", payload={"text": "x"})
        await client.hear_until("next")
        await client.say("complete", id="a")


@pytest.mark.parametrize("client", [ended, left, refused, single, among_others])
async def test_nothing_of_a_call_is_left_to_the_collector(
    serve: Serve, library_server: library.Server, client: Callable[[Running], Awaitable[None]]
) -> None:
    services = [{"name": "library", "address": library_server.address}]
    async with serve(services=services, runlog={"ttl_s": 0.05}) as running:
        await ready(running)
        found = await left_behind(running, client)
    assert {name for name in found if name.startswith("gateway.")} == set()
