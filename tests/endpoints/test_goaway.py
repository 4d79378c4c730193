"""A drain over WebSocket: goaway, then the runs that are there, then 1012; how many sockets there may be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.codec.websocket import SUBPROTOCOL
from gateway.endpoints.sockets import Sockets
from tests.conftest import Running, Serve, until, within
from tests.endpoints.test_websocket import Client, count_to_three, hear_all, joined, stall


async def begun(running: Running, client: Client, **payload: Any) -> Any:
    await client.subscribe("a", **payload)
    call = await running.pool.next_call()
    assert (await client.hear())["type"] == "start"
    return call


async def test_goaway_lets_runs_end_and_then_the_socket_is_closed_1012(serve: Serve) -> None:
    async with serve(drain_timeout_s=30, reconnect_ms=1000) as running, joined(running) as client, asyncio.TaskGroup() as tasks:
        call = await begun(running, client)
        draining = tasks.create_task(running.gateway.drain_runs())
        frame = await client.hear()
        assert frame["type"] == "goaway"
        assert 500 <= frame["payload"]["reconnect_in_ms"] <= 1500
        call.send("still here")
        assert (await client.hear())["payload"] == "still here"
        assert not draining.done()
        call.end()
        assert (await client.hear())["payload"]["status"] == "ok"
        assert (await client.closed())[0] == 1012


async def test_a_socket_without_runs_goes_away_at_once(serve: Serve) -> None:
    async with serve(drain_timeout_s=30) as running, joined(running) as client, joined(running, init=False) as silent:
        await within(running.gateway.drain_runs())
        assert (await client.hear())["type"] == "goaway"
        for socket in (client, silent):
            assert (await socket.closed())[0] == 1012
        assert len(running.gateway.sockets) == 0


@pytest.mark.parametrize("kind", ["subscribe", "attach"])
async def test_new_runs_are_refused_after_goaway_and_the_rest_goes_on(serve: Serve, kind: str) -> None:
    async with serve(drain_timeout_s=30) as running, joined(running) as client, asyncio.TaskGroup() as tasks:
        call = await begun(running, client)
        tasks.create_task(running.gateway.drain_runs())
        await client.hear_until("goaway")
        await client.say(kind, id="b", payload={"tool": "count"} if kind == "subscribe" else {"run": call.run_id})
        frame = await client.hear()
        assert (frame["type"], frame["id"], frame["payload"]["type"]) == ("error", "b", "/problems/shutting-down")
        call.end()
        assert (await client.hear_until("complete"))[-1]["id"] == "a"
        assert (await client.closed())[0] == 1012
    assert len(running.pool.calls) == 1


async def test_a_client_that_leaves_its_last_run_after_goaway_is_closed(serve: Serve) -> None:
    async with serve(drain_timeout_s=30) as running, joined(running) as client, asyncio.TaskGroup() as tasks:
        call = await begun(running, client)
        tasks.create_task(running.gateway.drain_runs())
        await client.hear_until("goaway")
        await client.say("complete", id="a")
        assert (await client.closed())[0] == 1012
        await within(call.cancelled.wait())


async def test_at_the_deadline_runs_end_as_shutdown_and_the_socket_is_closed(serve: Serve) -> None:
    async with serve(drain_timeout_s=0.05) as running, joined(running) as client:
        await begun(running, client)
        await within(running.gateway.drain_runs())
        frames = await client.hear_until("complete")
        assert [frame["type"] for frame in frames] == ["goaway", "complete"]
        assert frames[-1]["payload"]["status"] == "shutdown"
        assert (await client.closed())[0] == 1012


async def test_a_socket_whose_client_has_no_room_is_closed_at_the_deadline(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.endpoints.sockets.LAST_WORDS_S", 0.05)
    async with serve(drain_timeout_s=0.0) as running, joined(running) as client:
        call = await begun(running, client, credit=1)
        call.send(1, 2)
        await client.hear_until("next")
        await within(running.gateway.drain_runs())
        assert (await client.hear())["type"] == "goaway"
        assert (await client.closed())[0] == 1012
        assert len(running.gateway.sockets) == 0


async def test_a_drain_does_not_wait_for_a_client_that_reads_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.endpoints.sockets.LAST_WORDS_S", 0.05)
    async with serve(drain_timeout_s=0.0, write_timeout_s=0.5) as running, joined(running) as client:
        await stall(running, client)
        await within(running.gateway.drain_runs())
        await until(lambda: len(running.gateway.sockets) == 0)
        client.socket.transport.abort()


async def test_a_socket_that_comes_during_the_drain_is_closed_1012(running: Running) -> None:
    await running.gateway.drain_runs()
    async with joined(running, init=False) as client:
        assert (await client.closed())[0] == 1012
    async with connect(f"{running.ws_url}/v1/tools/count/ws", proxy=None) as socket:
        assert await hear_all(socket) == []
        assert socket.close_code == 1012


async def test_a_plain_socket_gets_its_end_in_a_drain(serve: Serve) -> None:
    async with serve(drain_timeout_s=0.0) as running, connect(f"{running.ws_url}/v1/tools/count/ws", proxy=None) as socket:
        await running.pool.next_call()
        await within(running.gateway.drain_runs())
        heard = await hear_all(socket)
        assert (heard[-1]["event"], heard[-1]["data"]["status"], socket.close_code) == ("end", "shutdown", 1000)


@pytest.mark.parametrize("path", ["/v1/ws", "/v1/tools/count/ws"])
async def test_more_sockets_than_the_limit_are_closed_1013_until_one_leaves(serve: Serve, path: str) -> None:
    running: Running
    async with serve(sockets_limit=1) as running:
        async with joined(running), connect(running.ws_url + path, subprotocols=[SUBPROTOCOL], proxy=None) as refused:  # type: ignore[list-item]
            await within(refused.wait_closed())
            assert (refused.close_code, refused.close_reason) == (1013, "1 sockets are open, the limit; try again later")
        await until(lambda: len(running.gateway.sockets) == 0)
        running.pool.script = count_to_three
        async with joined(running) as client:
            await client.subscribe("a")
            await client.hear_until("complete")
    assert len(running.pool.calls) == 1


class Idle:
    """A socket that notes what it is told, and closes when it is ended."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.over = asyncio.Event()

    async def serve(self) -> None:
        await self.over.wait()

    def go_away(self, reconnect_in_ms: int) -> None:
        self.told.append(reconnect_in_ms)

    def end(self) -> None:
        self.over.set()


async def test_clients_are_spread_over_time_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.endpoints.sockets.LAST_WORDS_S", 0.0)
    sockets = Sockets(limit=100, reconnect_ms=1000)
    idle = [Idle() for _ in range(100)]
    async with asyncio.TaskGroup() as tasks:
        for socket in idle:
            tasks.create_task(sockets.serve(socket))
        await until(lambda: len(sockets) == 100)
        sockets.go_away()
        sockets.go_away()
        await sockets.close(0.0)
    times = [socket.told[0] for socket in idle]
    assert all(len(socket.told) == 1 for socket in idle)
    assert 500 <= min(times) < max(times) <= 1500
    assert len(set(times)) > 10
    assert len(sockets) == 0
