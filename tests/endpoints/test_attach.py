"""Joining runs over WebSocket: with the ids of SSE, from anywhere in the run, in any company."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect

from gateway.runs.subscription import Subscription
from tests.conftest import FakeCall, Running, Serve, until, within
from tests.endpoints.test_websocket import Client, count_to_three, hear_all, joined, stall

FORGOTTEN = "r_01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def begun(running: Running, client: Client, *values: Any) -> tuple[str, FakeCall]:
    """Start a run as "own", with these chunks, of which the client has seen all."""
    await client.subscribe("own")
    call = await running.pool.next_call()
    if values:
        call.send(*values)
    frames = [await client.hear() for _ in range(1 + len(values))]
    return frames[0]["payload"]["run"], call


def eids(frames: list[dict[str, Any]], name: str) -> list[str]:
    return [frame["eid"] for frame in frames if frame["type"] == "next" and frame["id"] == name]


async def hear_ends(client: Client, *names: str) -> list[dict[str, Any]]:
    """Hear what comes until each of these has its terminal frame."""
    frames: list[dict[str, Any]] = []
    open_names = set(names)
    while open_names:
        frames.append(await client.hear())
        if frames[-1]["type"] in ("complete", "error"):
            open_names.discard(frames[-1]["id"])
    return frames


async def test_attach_joins_a_run_with_the_ids_of_sse(running: Running) -> None:
    async with joined(running) as owner, joined(running) as client:
        run, call = await begun(running, owner)
        await client.say("attach", id="a", payload={"run": run})
        start = await client.hear()
        assert (start["type"], start["payload"]["run"], start["payload"].get("resumed")) == ("start", run, None)
        call.send(1, 2)
        call.end()
        frames = await client.hear_until("complete")
        assert eids(frames, "a") == [f"{run}.1", f"{run}.2"]
        assert (frames[-1]["payload"]["status"], frames[-1]["payload"]["chunks"]) == ("ok", 2)
        assert [frame["payload"] for frame in await owner.hear_until("complete") if frame["type"] == "next"] == [1, 2]
    assert len(running.pool.calls) == 1


@pytest.mark.parametrize(
    "payload", [{"last_event_id": "{run}.2"}, {"run": "{run}", "last_event_id": "{run}.2"}, {"run": "{run}", "from": 2}]
)
async def test_attach_goes_on_after_what_the_client_has(running: Running, payload: dict[str, Any]) -> None:
    async with joined(running) as owner, joined(running) as client:
        run, call = await begun(running, owner, 1, 2)
        members = {name: value.format(run=run) if isinstance(value, str) else value for name, value in payload.items()}
        await client.say("attach", id="a", payload=members)
        start = (await client.hear())["payload"]
        assert (start["resumed"], start["from"]) == (True, 3)
        call.send(3)
        call.end()
        assert eids(await client.hear_until("complete"), "a") == [f"{run}.3"]


async def test_attach_from_live_begins_with_the_next_chunk(running: Running) -> None:
    async with joined(running) as owner, joined(running) as client:
        await owner.say("subscribe", id="own", payload={"tool": "count", "credit": 1})
        call = await running.pool.next_call()
        call.send(1, 2, 3)
        run = (await owner.hear_until("next"))[0]["payload"]["run"]
        await client.say("attach", id="a", payload={"run": run, "from": "live"})
        await client.hear_until("start")
        call.send(4)
        call.end()
        assert eids(await client.hear_until("complete"), "a") == [f"{run}.4"]


async def test_a_run_can_be_joined_twice_on_one_socket(running: Running) -> None:
    async with joined(running) as client:
        run, call = await begun(running, client)
        await client.say("attach", id="again", payload={"run": run})
        assert (await client.hear())["type"] == "start"
        call.send(1)
        call.send(2)
        call.end()
        frames = await hear_ends(client, "own", "again")
        assert eids(frames, "own") == eids(frames, "again") == [f"{run}.1", f"{run}.2"]


async def test_attach_to_an_ended_run_gets_the_rest_and_its_end(running: Running) -> None:
    running.pool.script = count_to_three
    async with joined(running) as client:
        await client.subscribe("own")
        run = (await client.hear_until("complete"))[0]["payload"]["run"]
        await client.say("attach", id="a", payload={"last_event_id": f"{run}.3"})
        frames = await client.hear_until("complete", "a")
        assert [frame["type"] for frame in frames] == ["start", "complete"]
        assert frames[-1]["payload"]["status"] == "ok"


@pytest.mark.parametrize("is_known", [True, False])
async def test_attach_after_the_end_is_complete_at_once_whether_or_not_the_run_is_known(running: Running, is_known: bool) -> None:
    running.pool.script = count_to_three
    async with joined(running) as client:
        run = FORGOTTEN
        if is_known:
            await client.subscribe("own")
            run = (await client.hear_until("complete"))[0]["payload"]["run"]
        for _ in range(2):
            await client.say("attach", id="a", payload={"last_event_id": f"{run}.end"})
            assert await client.hear() == {"type": "complete", "id": "a", "payload": {"run": run, "delivered": True}}


@pytest.mark.parametrize(
    ("payload", "slug", "detail"),
    [
        ({}, "invalid-option", "run is required"),
        ({"run": "r_nobody"}, "run-not-found", "r_nobody"),
        ({"run": FORGOTTEN, "from": "start"}, "run-not-found", FORGOTTEN),
        ({"last_event_id": f"{FORGOTTEN}.5"}, "run-expired", FORGOTTEN),
        ({"run": FORGOTTEN, "from": 5}, "run-expired", FORGOTTEN),
        ({"run": FORGOTTEN, "creidt": 5}, "invalid-option", "did you mean credit"),
    ],
)
async def test_attach_that_cannot_be_is_an_error_frame_and_the_socket_goes_on(
    running: Running, payload: dict[str, Any], slug: str, detail: str
) -> None:
    async with joined(running) as client:
        await client.say("attach", id="a", payload=payload)
        frame = await client.hear()
        assert (frame["type"], frame["id"], frame["payload"]["type"]) == ("error", "a", f"/problems/{slug}")
        assert detail in frame["payload"]["detail"]
        running.pool.script = count_to_three
        await client.subscribe("a")
        await client.hear_until("complete")


async def test_attach_under_a_live_id_is_closed_4409(running: Running) -> None:
    async with joined(running) as client:
        run, _ = await begun(running, client)
        await client.say("attach", id="own", payload={"run": run})
        assert (await client.closed())[0] == 4409


async def test_attach_counts_as_a_run_of_its_socket(serve: Serve) -> None:
    async with serve(socket_runs_limit=2) as running, joined(running) as client:
        run, _ = await begun(running, client)
        for name in ("a", "b"):
            await client.say("attach", id=name, payload={"run": run})
        assert (await client.closed())[0] == 4413


async def test_attached_reader_keeps_the_run_and_the_last_to_leave_ends_it(running: Running) -> None:
    async with joined(running) as owner, joined(running) as client:
        run, call = await begun(running, owner)
        await client.say("attach", id="a", payload={"run": run})
        await client.hear()
        await owner.say("complete", id="own")
        await owner.say("complete", id="own")
        await owner.say("ping")
        await owner.hear_until("pong")
        assert not call.cancelled.is_set()
        await client.say("complete", id="a")
        await within(call.cancelled.wait())


async def test_cancel_by_one_reader_ends_the_run_for_all(running: Running) -> None:
    async with joined(running) as owner, joined(running) as client:
        run, call = await begun(running, owner)
        await client.say("attach", id="a", payload={"run": run})
        await client.hear()
        await client.say("cancel", id="a")
        await client.say("cancel", id="a")
        for socket in (client, owner):
            assert (await socket.hear_until("complete"))[-1]["payload"]["status"] == "cancelled"
        assert call.cancelled.is_set()


async def test_sse_and_websocket_take_over_from_each_other(running: Running) -> None:
    async with joined(running) as client:
        async with running.client.stream("GET", "/v1/tools/count/stream") as response:
            call = await running.pool.next_call()
            call.send("sse")
            lines = response.aiter_lines()
            ids = [line.removeprefix("id: ") async for line in _until(lines, 'data: "sse"') if line.startswith("id: ")]
            await client.say("attach", id="a", payload={"last_event_id": ids[-1]})
            await client.hear_until("start")
        call.send("websocket")
        frame = (await client.hear_until("next"))[-1]
        assert (frame["payload"], frame["eid"]) == ("websocket", ids[-1].replace(".1", ".2"))
        async with running.client.stream("GET", "/v1/tools/count/stream", headers={"Last-Event-ID": frame["eid"]}) as response:
            await client.say("complete", id="a")
            call.send("sse again")
            call.end()
            text = "\n".join([line async for line in response.aiter_lines()])
        assert f'id: {ids[-1].replace(".1", ".3")}\ndata: "sse again"' in text
        assert "event: end" in text
    assert len(running.pool.calls) == 1


async def _until(lines: AsyncIterator[str], last: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line == last:
            return


def cut_reader(running: Running, call: FakeCall) -> None:
    """Do to a run's only reader what the overflow policy `disconnect` does."""
    run = running.gateway.hub.find_anybodys(call.run_id)
    assert run is not None
    reader: Subscription = run._readers[0]
    reader.cut = True
    reader.wake()


@pytest.mark.parametrize("is_blocked", [False, True])
async def test_a_reader_that_was_cut_is_an_error_and_may_attach_again(running: Running, is_blocked: bool) -> None:
    async with joined(running, max_size=None) as client, joined(running) as other:
        if is_blocked:
            call = await stall(running, client, "a")
            run = call.run_id
        else:
            await client.subscribe("a")
            call = await running.pool.next_call()
            run = (await client.hear())["payload"]["run"]
        await other.say("attach", id="keeps it alive", payload={"run": run, "from": "live"})
        await other.hear()
        cut_reader(running, call)
        client.socket.transport.resume_reading()
        frame = (await client.hear_until("error"))[-1]
        assert (frame["id"], frame["payload"]["type"], "end" in frame) == ("a", "/problems/slow-reader", False)
        await client.say("attach", id="a", payload={"run": run, "from": "live"})
        await client.hear_until("start")
        call.end()
        await client.hear_until("complete", "a")
        assert not call.cancelled.is_set()


# the plain socket


@asynccontextmanager
async def plain(running: Running, last_event_id: str | None = None) -> AsyncIterator[ClientConnection]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with connect(f"{running.ws_url}/v1/tools/count/ws", additional_headers=headers, compression=None, proxy=None) as socket:
        yield socket


async def test_plain_socket_goes_on_after_its_last_event_id(running: Running) -> None:
    async with joined(running) as owner, plain(running, None) as first:
        call = await running.pool.next_call()
        run = call.run_id
        call.send(1)
        for _ in range(2):
            last = orjson.loads(await within(first.recv()))
        await owner.say("attach", id="keeps it alive", payload={"run": run})
        await owner.hear()
        await first.close()
        async with plain(running, last["id"]) as second:
            start = orjson.loads(await within(second.recv()))
            assert (start["event"], start["data"]["from"]) == ("start", 2)
            call.send(2)
            call.end()
            heard = await hear_all(second)
            assert [(message["event"], message["id"]) for message in heard] == [("message", f"{run}.2"), ("end", f"{run}.end")]
            assert second.close_code == 1000
    assert len(running.pool.calls) == 1


async def test_plain_socket_that_has_its_end_is_closed_1000_with_nothing(running: Running) -> None:
    async with plain(running, f"{FORGOTTEN}.end") as socket:
        assert await hear_all(socket) == []
        assert (socket.close_code, socket.close_reason) == (1000, "everything was delivered")
    assert running.pool.requests == []


async def test_plain_socket_of_a_forgotten_run_is_told_expired_once(running: Running) -> None:
    async with plain(running, f"{FORGOTTEN}.7") as socket:
        (message,) = await hear_all(socket)
        assert socket.close_code == 1000
    assert (message["event"], message["id"], message["data"]["status"]) == ("end", f"{FORGOTTEN}.end", "expired")
    assert message["data"]["error"]["type"] == "/problems/run-expired"
    assert running.pool.requests == []


async def test_plain_socket_with_a_wrong_event_id_says_what_is_allowed(running: Running) -> None:
    async with plain(running, "7") as socket:
        (message,) = await hear_all(socket)
        assert socket.close_code == 4400
    assert "<run>.<number>" in message["data"]["error"]["detail"]
    assert running.pool.requests == []


async def test_plain_socket_whose_reader_was_cut_is_closed_1013_without_an_end(running: Running) -> None:
    async with plain(running) as socket:
        call = await running.pool.next_call()
        call.send(1)
        await within(socket.recv())
        cut_reader(running, call)
        assert [message["event"] for message in await hear_all(socket)] == ["message"]
        assert socket.close_code == 1013
    await until(lambda: running.open_runs() == 0)


async def test_a_plain_socket_costs_two_tasks_and_its_request(running: Running) -> None:
    before = len(asyncio.all_tasks())
    async with plain(running) as socket:
        call = await running.pool.next_call()
        await within(socket.recv())
        names = sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("websocket "))
        assert names == ["websocket reader", "websocket writer"]
        call.end()
        await hear_all(socket)
    await until(lambda: len(asyncio.all_tasks()) <= before)
