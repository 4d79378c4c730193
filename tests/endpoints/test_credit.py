"""Credit: a client says how many chunks it has room for, and no more are sent; a client without room stops the worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import FakeCall, Running, Serve, within
from tests.endpoints.test_data_path import writes
from tests.endpoints.test_websocket import Client, count_to_three, joined

__all__ = ["writes"]


async def begun(running: Running, client: Client, credit: int, name: str = "a") -> FakeCall:
    await client.subscribe(name, credit=credit)
    call = await running.pool.next_call()
    assert (await client.hear())["type"] == "start"
    return call


async def quiet(client: Client) -> None:
    """Nothing has come since the last frame that was heard: a ping's answer is the next."""
    await client.say("ping")
    assert await client.hear() == {"type": "pong"}


async def heard_numbers(client: Client, count: int) -> list[int]:
    frames = [await client.hear() for _ in range(count)]
    assert {frame["type"] for frame in frames} <= {"next"}
    return [int(frame["eid"].rpartition(".")[2]) for frame in frames]


async def test_each_next_uses_one_credit_and_without_it_none_is_sent(running: Running) -> None:
    async with joined(running) as client:
        call = await begun(running, client, 3)
        call.send(*range(10))
        assert await heard_numbers(client, 3) == [1, 2, 3]
        await quiet(client)
        await client.say("credit", id="a", n=1)
        assert await heard_numbers(client, 1) == [4]
        await quiet(client)
        await client.say("credit", id="a", n=4)
        await client.say("credit", id="a", n=100)
        assert await heard_numbers(client, 6) == [5, 6, 7, 8, 9, 10]
        call.send(11)
        assert await heard_numbers(client, 1) == [11]
        call.end()
        assert (await client.hear())["type"] == "complete"


async def test_without_credit_in_its_payload_delivery_is_not_limited(running: Running) -> None:
    async with joined(running) as client:
        await client.subscribe("a")
        call = await running.pool.next_call()
        await client.say("credit", id="a", n=1)
        call.send(*range(1000))
        call.end()
        frames = await client.hear_until("complete")
        assert sum(frame["type"] == "next" for frame in frames) == 1000


async def test_the_end_needs_no_credit_but_waits_for_the_chunks_before_it(running: Running) -> None:
    async with joined(running) as client:
        call = await begun(running, client, 1)
        call.send(1, 2)
        call.end()
        assert await heard_numbers(client, 1) == [1]
        await quiet(client)
        await client.say("credit", id="a", n=1)
        assert await heard_numbers(client, 1) == [2]
        assert (await client.hear())["type"] == "complete"


async def test_status_needs_no_credit(running: Running) -> None:
    running.pool.busy = True
    async with joined(running) as client:
        await client.subscribe("a", credit=1)
        ticket = await running.pool.next_ticket()
        await client.hear_until("status")
        ticket.holder.on_position(1, 7)
        assert (await client.hear())["payload"]["depth"] == 7
        ticket.grant()
        assert (await client.hear())["payload"]["state"] == "running"
        (await running.pool.next_call()).send(1, 2)
        assert await heard_numbers(client, 1) == [1]
        await quiet(client)


async def test_a_client_without_room_makes_the_worker_wait_and_one_with_room_lets_it_go_on(serve: Serve) -> None:
    async with serve(reader_lag_bytes=10_000) as running, joined(running) as client:
        call = await begun(running, client, 2)
        call.send("x", "x")
        assert await heard_numbers(client, 2) == [1, 2]
        assert not call.paused
        call.send("x" * 6_000)
        call.send("x" * 6_000)
        assert call.paused
        await quiet(client)
        await client.say("credit", id="a", n=2)
        assert await heard_numbers(client, 2) == [3, 4]
        assert not call.paused


async def test_a_client_without_room_for_one_run_has_it_for_another(running: Running) -> None:
    async with joined(running) as client:
        full = await begun(running, client, 1, "full")
        full.send(*range(5))
        assert await heard_numbers(client, 1) == [1]
        running.pool.script = count_to_three
        await client.subscribe("free")
        assert [frame["type"] for frame in await client.hear_until("complete", "free")] == ["start", "next", "next", "next", "complete"]


async def test_attach_has_a_credit_of_its_own(running: Running) -> None:
    async with joined(running) as owner, joined(running) as client:
        await owner.subscribe("own")
        call = await running.pool.next_call()
        await client.say("attach", id="a", payload={"run": call.run_id, "credit": 2})
        await client.hear_until("start")
        call.send(*range(5))
        await owner.hear_until("start")
        assert await heard_numbers(owner, 5) == [1, 2, 3, 4, 5]
        assert await heard_numbers(client, 2) == [1, 2]
        await quiet(client)
        await client.say("credit", id="a", n=5)
        assert await heard_numbers(client, 3) == [3, 4, 5]


async def test_cancel_of_a_run_without_credit_ends_it_and_complete_leaves_it(running: Running) -> None:
    async with joined(running) as client:
        call = await begun(running, client, 1)
        call.send(1, 2)
        assert await heard_numbers(client, 1) == [1]
        await client.say("cancel", id="a")
        await within(call.cancelled.wait())
        # The second chunk was made before the cancel and stands before the end; who doesn't want it leaves.
        await quiet(client)
        await client.say("complete", id="a")
        await quiet(client)
        running.pool.script = count_to_three
        await client.subscribe("a", credit=3)
        frames = await client.hear_until("complete")
        assert [frame["type"] for frame in frames] == ["start", "next", "next", "next", "complete"]


async def test_the_sum_of_a_runs_credit_is_bounded(running: Running) -> None:
    async with joined(running) as client:
        await begun(running, client, 1)
        await client.say("credit", id="a", n=999_999)
        await quiet(client)
        await client.say("credit", id="a", n=1)
        code, reason = await client.closed()
        assert (code, "1000000" in reason) == (4400, True)


async def test_credit_for_an_id_that_is_over_is_ignored(running: Running) -> None:
    running.pool.script = count_to_three
    async with joined(running) as client:
        await client.say("credit", id="nobody", n=5)
        await client.subscribe("a", credit=3)
        await client.hear_until("complete")
        await client.say("credit", id="a", n=5)
        await quiet(client)


@pytest.mark.parametrize("credit", [0, -1, True, "5", 1_000_001])
async def test_a_wrong_credit_in_a_payload_is_an_error_frame_and_starts_nothing(running: Running, credit: Any) -> None:
    async with joined(running) as client:
        await client.subscribe("a", credit=credit)
        frame = await client.hear()
        assert (frame["type"], frame["payload"]["errors"][0]["field"]) == ("error", "credit")
        assert "from 1 to 1000000" in frame["payload"]["detail"]
    assert running.pool.requests == []


async def test_a_batch_within_the_credit_is_one_write_and_so_is_what_a_grant_sets_free(running: Running, writes: Any) -> None:
    async with joined(running) as client:
        call = await begun(running, client, 500)
        call.send(0)
        await client.hear_until("next")
        writes.clear()
        call.send(*range(1000))
        # 499 of them, and nothing for those that wait.
        assert writes == {"write_messages": 1}
        await heard_numbers(client, 499)
        await client.say("credit", id="a", n=600)
        assert len(await heard_numbers(client, 501)) == 501
        assert writes == {"write_messages": 2}


async def test_a_grant_while_a_send_is_blocked_loses_and_doubles_nothing(serve: Serve) -> None:
    async with serve(reader_lag_bytes=1_000_000) as running, joined(running, max_size=None) as client:
        call = await begun(running, client, 100)
        client.socket.transport.pause_reading()
        async with asyncio.timeout(10):
            while not call.paused:
                call.send(*["x" * 50_000] * 10)
                await asyncio.sleep(0)
        await client.say("credit", id="a", n=10_000)
        sent = call.sink.log.next - 1  # type: ignore[attr-defined]
        client.socket.transport.resume_reading()
        call.end()
        frames = await client.hear_until("complete")
        assert [int(frame["eid"].rpartition(".")[2]) for frame in frames if frame["type"] == "next"] == list(range(1, sent + 1))
