"""The client for an event loop: the same conversations, and what is its own: cancelled tasks, abandoned loops."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import pytest

from gateway.client import AsyncClient, Chunk, End, NotReachable, Start, StopStream
from gateway.client.errors import RunCancelled, ToolFailed, ToolNotFound
from tests.client.test_client import count_to_three, for_ever
from tests.conftest import Running, until, within


async def collect(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def test_call_and_execute_return_the_result(running: Running, client: AsyncClient) -> None:
    running.pool.script = lambda call: (call.send({"sum": 3}), call.end())  # type: ignore[assignment, func-returns-value]
    assert await client.execute("add", {"a": 1, "b": 2}, timeout=1500) == {"sum": 3}
    assert await client.call("add", {"a": 1, "b": 2}, session_id="s") == {"sum": 3}
    assert [(fake.call.timeout_s, fake.call.session_id) for fake in running.pool.calls] == [(1.5, None), (300.0, "s")]


async def test_a_stream_is_its_chunks_and_knows_its_run_start_and_end(running: Running, client: AsyncClient) -> None:
    running.pool.script = count_to_three
    async with client.stream("count", {"count": 3}) as stream:
        assert stream.start is not None
        assert stream.run_id == stream.start["run"]
        assert await collect(stream) == [1, {"n": 2}, "drei"]
    assert isinstance(stream.end, End)
    assert stream.metadata["worker_id"] == "w-1"
    events = await collect(client.attach(stream.run_id, 2).events())
    assert [type(event) for event in events] == [Start, Chunk, End]


async def test_execute_stream_calls_back_until_it_is_stopped(running: Running, client: AsyncClient) -> None:
    running.pool.script = count_to_three
    seen: list[Any] = []
    end = await client.execute_stream("count", {}, seen.append)
    assert (seen, end and end.chunks) == ([1, {"n": 2}, "drei"], 3)

    def stop(chunk: Any) -> None:
        raise StopStream

    assert await client.execute_stream("count", {}, stop) is None


async def break_off(client: AsyncClient) -> None:
    async for _ in client.stream("count"):
        break
    # The loop closes what was left behind when it gets to it.
    gc.collect()


async def leave_the_block(client: AsyncClient) -> None:
    async with client.stream("count") as stream:
        assert await anext(aiter(stream)) == 0


async def close_by_name(client: AsyncClient) -> None:
    stream = await client.stream("count").open()
    await stream.aclose()
    await stream.aclose()
    assert await collect(stream) == []


async def cancel_the_task(client: AsyncClient) -> None:
    has_begun = asyncio.Event()

    async def read() -> None:
        async for chunk in client.stream("count"):
            if chunk == 999:
                has_begun.set()

    task = asyncio.create_task(read())
    await within(has_begun.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def time_out(client: AsyncClient) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await collect(client.stream("count"))


async def leave_a_cancel_scope(client: AsyncClient) -> None:
    # Whose every await is cancelled, those of a `finally` as well.
    with anyio.move_on_after(0.3) as scope:
        await collect(client.stream("count"))
    assert scope.cancelled_caught


@pytest.mark.parametrize("leave", [break_off, leave_the_block, close_by_name, cancel_the_task, time_out, leave_a_cancel_scope])
async def test_leaving_cancels_the_run(running: Running, client: AsyncClient, leave: Any) -> None:
    running.pool.script = for_ever
    await leave(client)
    if leave is break_off:
        await within(running.pool.calls[0].cancelled.wait())
    assert running.pool.calls[0].cancelled.is_set()
    await until(lambda: running.open_runs() == 0)


async def test_a_call_whose_task_is_cancelled_cancels_the_run(running: Running, client: AsyncClient) -> None:
    task = asyncio.create_task(client.call("add", {"a": 1, "b": 2}))
    call = await running.pool.next_call()
    task.cancel()
    await within(call.cancelled.wait())


async def test_a_stream_that_is_forgotten_warns(running: Running, client: AsyncClient) -> None:
    running.pool.script = for_ever
    streams = [await client.stream("count").open()]
    with pytest.warns(ResourceWarning, match="never closed"):
        streams.clear()


async def test_errors_have_the_class_of_their_problem(running: Running, client: AsyncClient) -> None:
    with pytest.raises(ToolNotFound):
        await collect(client.stream("nobody"))
    running.pool.script = lambda call: (call.send(1), call.fail())  # type: ignore[assignment, func-returns-value]
    seen: list[Any] = []
    with pytest.raises(ToolFailed):
        await client.execute_stream("count", {}, seen.append)
    assert seen == [1]
    async with AsyncClient("http://127.0.0.1:1") as nobody:
        with pytest.raises(NotReachable):
            await nobody.tools()
        with pytest.raises(NotReachable):
            await collect(nobody.stream("count"))


async def test_runs_in_the_background(running: Running, client: AsyncClient) -> None:
    run = await client.start("count", {"count": 3})
    with pytest.raises(TimeoutError):
        await run.result(timeout_s=0.05)
    call = await running.pool.next_call()
    waiting = asyncio.create_task(run.result())
    count_to_three(call)
    assert await within(waiting) == [1, {"n": 2}, "drei"]
    assert (await run.refresh()).state == "ok"
    assert await collect(run.stream(2)) == ["drei"]
    other = await client.start("count")
    assert [(one.id, one.state) async for one in client.runs()] == [(other.id, "running"), (run.id, "ok")]
    assert (await (await client.run(other.id)).cancel()).state == "cancelled"
    with pytest.raises(RunCancelled):
        await other.result()


async def test_a_cut_stream_is_resumed_and_the_tool_runs_once(running: Running, client: AsyncClient) -> None:
    seen: list[Any] = []
    client._habits.pulse.silence_s = 0.2
    reader = asyncio.create_task(client.execute_stream("count", {}, seen.append))
    call = await running.pool.next_call()
    call.send(1)
    run = running.gateway.hub.find_anybodys(call.run_id)
    assert run is not None
    await until(lambda: seen == [1])
    await until(lambda: not run.readers)
    await until(lambda: run.readers)
    call.send(2)
    call.end()
    await within(reader)
    assert (seen, len(running.pool.calls)) == ([1, 2], 1)


async def test_tools_are_the_catalogue(client: AsyncClient) -> None:
    assert [tool["name"] for tool in await client.tools()] == ["add", "count", "opaque", "typed"]
    assert (await client.tool("add"))["pool"] == "default"
    assert repr(client) == f"<AsyncClient {client.url}>"
