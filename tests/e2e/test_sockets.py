"""One run, many ways to read it: SSE and WebSocket take over from each other, read side by side, and hold the tool back."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websockets

from tests.e2e.harness import JOURNAL_ADAPTER, PATIENCE_S, Served, events_of, read_sse, until, wait_for
from tests.e2e.socketclient import joined


@pytest.fixture
def idle_afterwards(gateway: Served) -> Iterator[None]:
    """Nothing runs on when a test is over."""
    yield
    wait_for(gateway.is_idle, f"idle pools: {gateway.pools()}")


pytestmark = pytest.mark.usefixtures("idle_afterwards")


async def test_a_run_goes_from_sse_to_websocket_and_back_by_its_event_ids(gateway: Served, tag: str) -> None:
    url = f"/v1/tools/gated/stream?tag={tag}&chunks=3"
    seen: list[tuple[str, int]] = []
    async with gateway.http() as client, joined(gateway) as socket:
        async with client.stream("GET", url) as response:
            async for event in events_of(response):
                if event.event == "message":
                    seen.append((event.id, event.json()["n"]))
                    break
            await socket.say("attach", id="a", payload={"last_event_id": seen[-1][0]})
            start = await socket.hear_until("start")
        assert start["payload"]["resumed"] is True
        gateway.open_gate(tag, 2)
        frame = await socket.hear_until("next")
        seen.append((frame["eid"], frame["payload"]["n"]))
        async with client.stream("GET", url, headers={"Last-Event-ID": frame["eid"]}) as response:
            await socket.say("complete", id="a")
            gateway.open_gate(tag, 3)
            story = await read_sse(response)
        assert story.start is not None
        assert story.start["resumed"] is True
        assert story.end is not None
        assert (story.end["status"], story.end["chunks"]) == ("ok", 3)
        seen += [(f"{story.start['run']}.{number}", chunk["n"]) for number, chunk in zip(story.numbers, story.chunks, strict=True)]
        # Over the socket, too, everything has now been delivered.
        await socket.say("attach", id="b", payload={"last_event_id": f"{story.start['run']}.end"})
        assert (await socket.hear_until("complete"))["payload"]["delivered"] is True
    assert seen == [(f"{story.start['run']}.{number}", number) for number in (1, 2, 3)]
    assert gateway.journal(tag).count("start") == 1


async def test_two_sockets_and_an_sse_reader_see_the_same_chunks(gateway: Served, tag: str) -> None:
    count = 500
    async with gateway.http() as client, joined(gateway) as first, joined(gateway) as second, asyncio.TaskGroup() as tasks:
        await first.say("subscribe", id="a", payload={"tool": "held", "args": {"tag": tag, "count": count, "gate": 2}})
        run = (await first.hear_until("start"))["payload"]["run"]
        await first.hear_until("next")
        await second.say("attach", id="b", payload={"run": run, "from": 1})
        await second.hear_until("start")
        async with client.stream("GET", f"/v1/runs/{run}/events", headers={"Last-Event-ID": f"{run}.1"}) as response:
            reading = tasks.create_task(read_sse(response))
            gateway.open_gate(tag, 2)
            await first.hear_until("complete")
            await second.hear_until("complete")
            story = await reading
    by_socket = first.chunks("a")
    assert by_socket == [(f"{run}.{number}", {"n": number}) for number in range(1, count + 1)]
    assert second.chunks("b") == by_socket[1:]
    assert [(f"{run}.{number}", chunk) for number, chunk in zip(story.numbers, story.chunks, strict=True)] == by_socket[1:]
    assert gateway.journal(tag).count("start") == 1


async def test_a_client_without_credit_stops_the_tool(gateway: Served, tag: str) -> None:
    count, size = 400, 100_000
    async with gateway.http() as client, joined(gateway) as socket:
        arguments = {"tag": tag, "chunks": count, "size": size}
        await socket.say("subscribe", id="a", payload={"tool": "noted", "args": arguments, "credit": 2})
        for _ in range(2):
            await socket.hear_until("next")
        await until(lambda: gateway.journal(tag).count("yield") > 2, "the tool to run ahead")
        # Meanwhile others get 200,000 chunks, so it has had its time.
        for number in range(10):
            url = f"/v1/tools/numbered/stream?tag={tag}-other-{number}&count=20000"
            async with client.stream("GET", url) as response:
                assert len((await read_sse(response)).chunks) == 20000
        ahead = gateway.journal(tag).count("yield")
        assert ahead < count // 2, "the tool was not stopped"
        await socket.say("ping")
        assert (await socket.hear())["type"] == "pong"
        await socket.say("credit", id="a", n=count)
        end = await socket.hear_until("complete")
        assert end["payload"]["chunks"] == count
        assert [payload["n"] for _, payload in socket.chunks("a")] == list(range(1, count + 1))


async def test_plain_socket_goes_on_after_the_network_was_cut(gateway: Served, tag: str) -> None:
    url = f"ws://127.0.0.1:{gateway.port}/v1/tools/gated/ws?tag={tag}&chunks=2"
    async with joined(gateway) as keeper:
        async with websockets.connect(url, proxy=None) as socket:
            events: list[dict[str, Any]] = [json.loads(await socket.recv()) for _ in range(2)]
            await keeper.say("attach", id="a", payload={"run": events[0]["data"]["run"], "from": "live"})
            await keeper.hear_until("start")
            socket.transport.abort()
        headers = {"Last-Event-ID": events[-1]["id"]}
        async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
            gateway.open_gate(tag, 2)
            events += [json.loads(message) async for message in socket]
            assert socket.close_code == 1000
    assert [event["event"] for event in events] == ["start", "message", "start", "message", "end"]
    assert [event["data"]["n"] for event in events if event["event"] == "message"] == [1, 2]
    assert gateway.journal(tag).count("start") == 1


async def test_a_stopping_gateway_says_goaway_lets_the_run_end_and_closes_1012(serve: Callable[..., Served], tag: str) -> None:
    settings = f'[server]\ndrain_timeout_s = 20\n[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nconcurrency = 4\n'
    own = serve(settings=settings)
    async with joined(own) as socket, joined(own) as idle:
        await socket.say("subscribe", id="a", payload={"tool": "gated", "args": {"tag": tag, "chunks": 2}})
        await socket.hear_until("next")
        own.process.send_signal(signal.SIGTERM)
        away = await socket.hear()
        assert (away["type"], 1000 <= away["payload"]["reconnect_in_ms"] <= 3000) == ("goaway", True)
        async with asyncio.timeout(PATIENCE_S):
            await idle.socket.wait_closed()
        assert (idle.socket.close_code, own.process.poll()) == (1012, None)
        await socket.say("subscribe", id="b", payload={"tool": "gated", "args": {"tag": tag}})
        assert (await socket.hear())["payload"]["type"] == "/problems/shutting-down"
        own.open_gate(tag, 2)
        end = await socket.hear_until("complete")
        assert (end["payload"]["status"], end["payload"]["chunks"]) == ("ok", 2)
        async with asyncio.timeout(PATIENCE_S):
            await socket.socket.wait_closed()
        assert socket.socket.close_code == 1012
    assert await asyncio.to_thread(own.process.wait, PATIENCE_S) == 0
    own.check_remains()
    assert own.journal(tag).count("start") == 1
