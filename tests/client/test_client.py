"""The client without an event loop against a gateway with a scripted worker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from typing import Any

import pytest

from gateway.client import NEVER, Chunk, Client, End, NotReachable, Start, StopStream, StreamLost
from gateway.client.errors import InvalidArguments, RunCancelled, RunNotFound, ToolFailed, ToolNotFound
from tests.client.conftest import threaded
from tests.conftest import FakeCall, Running, until


def count_to_three(call: FakeCall) -> None:
    call.send(1, {"n": 2})
    call.send("drei")
    call.end({"worker_id": "w-1"})


def for_ever(call: FakeCall) -> None:
    call.send(*range(1000))


async def test_call_returns_the_result_and_execute_takes_milliseconds(running: Running, blocking: Client) -> None:
    running.pool.script = lambda call: (call.send({"sum": 3}), call.end())  # type: ignore[assignment, func-returns-value]
    assert await threaded(lambda: blocking.execute("add", {"a": 1, "b": 2}, timeout=1500, session_id="s", pool="default")) == {"sum": 3}
    assert await threaded(lambda: blocking.call("add", {"a": 1, "b": 2}, timeout_s=2.5)) == {"sum": 3}
    first, second = (fake.call for fake in running.pool.calls)
    assert (first.arguments, first.timeout_s, first.session_id, first.pool) == ({"a": 1, "b": 2}, 1.5, "s", "default")
    assert second.timeout_s == 2.5


async def test_a_stream_is_its_chunks_and_knows_its_run_start_and_end(running: Running, blocking: Client) -> None:
    running.pool.script = count_to_three

    def read() -> tuple[Any, ...]:
        stream = blocking.stream("count", {"count": 3})
        before = (stream.run_id, stream.start, stream.end, dict(stream.metadata), stream.position)
        with stream:
            assert stream.start is not None
            begun = (stream.run_id, stream.start["tool"], stream.start["on_disconnect"])
            values = list(stream)
        return before, begun, values, stream.end, stream.metadata["worker_id"], stream.position, stream.last_event_id

    before, begun, values, end, worker, position, last_event_id = await threaded(read)
    assert before == (None, None, None, {}, 0)
    assert begun == (before[0] or begun[0], "count", "grace:10s")
    assert values == [1, {"n": 2}, "drei"]
    assert isinstance(end, End)
    assert (end.status, end.chunks, worker, position, last_event_id) == ("ok", 3, "w-1", 3, f"{begun[0]}.3")


async def test_events_are_all_that_is_said(running: Running, blocking: Client) -> None:
    running.pool.script = count_to_three
    events = await threaded(lambda: list(blocking.stream("count").events()))
    assert isinstance(events[0], Start)
    assert [event for event in events if isinstance(event, Chunk)] == [
        Chunk(1, 1, b"1"),
        Chunk(2, {"n": 2}, b'{"n":2}'),
        Chunk(3, "drei", b'"drei"'),
    ]
    assert isinstance(events[-1], End)


async def test_the_place_to_go_on_from_is_behind_the_chunk_in_hand(running: Running, blocking: Client) -> None:
    running.pool.script = count_to_three

    def read() -> list[tuple[Any, ...]]:
        stream = blocking.stream("count")
        by_value = [(stream.position, chunk) for chunk in stream]
        again = blocking.attach(stream.run_id or "", 1)
        by_event = [(again.last_event_id, event.value) for event in again.events() if isinstance(event, Chunk)]
        assert [str(place).partition(".")[2] for place, _ in by_event] == ["2", "3"]
        return by_value

    assert await threaded(read) == [(1, 1), (2, {"n": 2}), (3, "drei")]


async def test_execute_stream_calls_back_in_order_whatever_the_callback_returns(running: Running, blocking: Client) -> None:
    running.pool.script = count_to_three
    seen: list[Any] = []

    def callback(chunk: Any) -> bool:
        seen.append(chunk)
        return False

    end = await threaded(lambda: blocking.execute_stream("count", {"count": 3}, callback, timeout=5000))
    assert end is not None
    assert (seen, end.chunks, end.metadata["worker_id"]) == ([1, {"n": 2}, "drei"], 3, "w-1")


@pytest.mark.parametrize("error", [StopStream, ZeroDivisionError])
async def test_a_callback_that_raises_stops_the_stream_and_the_run(running: Running, blocking: Client, error: type[Exception]) -> None:
    running.pool.script = for_ever
    seen: list[Any] = []

    def callback(chunk: Any) -> None:
        seen.append(chunk)
        if len(seen) == 2:
            raise error

    if error is StopStream:
        assert await threaded(lambda: blocking.execute_stream("count", {}, callback)) is None
    else:
        with pytest.raises(error):
            await threaded(lambda: blocking.execute_stream("count", {}, callback))
    assert (seen, running.pool.calls[0].cancelled.is_set()) == ([0, 1], True)


def break_off(client: Client) -> None:
    for _ in client.stream("count"):
        break


def leave_the_block(client: Client) -> None:
    with client.stream("count") as stream:
        assert next(iter(stream)) == 0


def raise_in_the_loop(client: Client) -> None:
    with contextlib.suppress(KeyError):
        for _ in client.stream("count"):
            raise KeyError


def close_by_name(client: Client) -> None:
    stream = client.stream("count").open()
    assert not stream.is_cancelled
    stream.close()
    stream.close()
    assert (list(stream), stream.is_cancelled) == ([], True)


@pytest.mark.parametrize("leave", [break_off, leave_the_block, raise_in_the_loop, close_by_name])
async def test_leaving_cancels_the_run_before_it_returns(running: Running, blocking: Client, leave: Any) -> None:
    running.pool.script = for_ever
    await threaded(lambda: leave(blocking))
    assert (running.pool.calls[0].cancelled.is_set(), running.open_runs()) == (True, 0)


async def test_leaving_with_a_policy_is_a_disconnect(running: Running, blocking: Client) -> None:
    running.pool.script = for_ever

    def leave() -> str | None:
        with blocking.stream("count", on_disconnect="continue") as stream:
            return stream.run_id

    run_id = await threaded(leave)
    assert (running.pool.calls[0].cancelled.is_set(), running.open_runs()) == (False, 1)
    run = await threaded(lambda: blocking.run(run_id or "").cancel())
    assert (run.state, running.open_runs()) == ("cancelled", 0)


async def test_a_stream_that_is_forgotten_warns_and_cuts_its_connection(running: Running, blocking: Client) -> None:
    running.pool.script = for_ever

    def forget() -> None:
        blocking.stream("count").open()
        gc.collect()

    with pytest.warns(ResourceWarning, match="never closed"):
        await threaded(forget)
    await until(lambda: not running.http.server_state.connections)


async def test_a_stream_that_was_never_used_is_no_concern(blocking: Client) -> None:
    blocking.stream("count")
    gc.collect()


async def test_errors_have_the_class_of_their_problem(running: Running, blocking: Client) -> None:
    with pytest.raises(ToolNotFound, match="no tool 'nobody'"):
        await threaded(lambda: list(blocking.stream("nobody")))
    with pytest.raises(InvalidArguments) as caught:
        await threaded(lambda: list(blocking.stream("count", {"count": "x"})))
    assert [error.field for error in caught.value.errors] == ["/count"]
    with pytest.raises(RunNotFound):
        await threaded(lambda: list(blocking.attach("r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X")))


async def test_a_failure_after_chunks_comes_after_them(running: Running, blocking: Client) -> None:
    running.pool.script = lambda call: (call.send(1), call.fail())  # type: ignore[assignment, func-returns-value]
    seen: list[Any] = []
    with pytest.raises(ToolFailed, match="boom") as caught:
        await threaded(lambda: [seen.append(chunk) for chunk in blocking.stream("count")])
    assert (seen, caught.value.error_type) == ([1], "ValueError")


async def test_a_run_that_somebody_cancels_says_so(running: Running, blocking: Client) -> None:
    running.pool.script = for_ever

    def read() -> None:
        with blocking.stream("count") as stream:
            blocking.run(stream.run_id or "").cancel()
            list(stream)

    with pytest.raises(RunCancelled, match="by a client"):
        await threaded(read)


async def test_runs_in_the_background(running: Running, blocking: Client) -> None:
    running.pool.script = count_to_three
    run = await threaded(lambda: blocking.start("count", {"count": 3}, idempotency_key="k"))
    assert await threaded(lambda: run.result(timeout_s=5)) == [1, {"n": 2}, "drei"]
    assert (await threaded(run.refresh)).state == "ok"
    assert await threaded(lambda: list(run.stream(1))) == [{"n": 2}, "drei"]
    again = await threaded(lambda: blocking.start("count", {"count": 3}, idempotency_key="k"))
    assert again.id == run.id
    assert [one.id for one in await threaded(lambda: list(blocking.runs(state="ok", tool="count")))] == [run.id]


async def test_a_result_is_not_waited_for_longer_than_was_said(running: Running, blocking: Client) -> None:
    run = await threaded(lambda: blocking.start("count"))
    with pytest.raises(TimeoutError):
        await threaded(lambda: run.result(timeout_s=0.2))
    assert (await threaded(run.cancel)).state == "cancelled"


async def test_a_run_is_joined_at_an_event_id_while_it_lives(running: Running, blocking: Client) -> None:
    running.pool.script = lambda call: call.send(1, 2, 3)
    run = await threaded(lambda: blocking.start("count"))
    await running.pool.next_call()
    joined = blocking.attach(f"{run.id}.2", role="observer")
    assert await threaded(lambda: next(iter(joined))) == 3


async def test_tools_are_the_catalogue(blocking: Client) -> None:
    assert [tool["name"] for tool in await threaded(blocking.tools)] == ["add", "count", "opaque", "typed"]
    assert (await threaded(lambda: blocking.tool("add")))["supports_streaming"] is False


async def test_many_threads_share_a_client(running: Running, blocking: Client) -> None:
    running.pool.script = count_to_three
    results: list[list[Any]] = []

    def work() -> None:
        results.extend(list(blocking.stream("count")) for _ in range(5))

    def all_of_them() -> None:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    await threaded(all_of_them)
    assert results == [[1, {"n": 2}, "drei"]] * 40


async def test_nobody_there_is_said_at_once() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{sock.getsockname()[1]}")
        with client:
            for ask in (lambda: client.call("add"), lambda: list(client.stream("count")), client.tools):
                with pytest.raises(NotReachable, match=r"127\.0\.0\.1"):
                    await threaded(ask)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://x:port"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL"):
        Client(url)


async def test_url_and_key_come_from_the_environment_and_the_key_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 12\r\n\r\n{"tools":[]}')
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("GATEWAY_URL", url)
        monkeypatch.setenv("GATEWAY_KEY", "secret-1")
        with Client() as client:
            assert (client.url, await threaded(client.tools)) == (url, [])
            assert "secret-1" not in f"{client!r} {client._address!r}"
        with Client(key="secret-2") as client:
            await threaded(client.tools)
    assert [b"Authorization: Bearer secret-%d" % n in head for n, head in enumerate(heads, 1)] == [True, True]


async def test_a_connection_that_is_silent_for_too_long_is_given_up_and_resumed(running: Running, blocking: Client) -> None:
    blocking._habits.pulse.silence_s = 0.2
    reader = asyncio.create_task(threaded(lambda: list(blocking.stream("count").events())))
    call = await running.pool.next_call()
    call.send(1)
    # What the gateway says of its heartbeat holds for the next connection.
    await until(lambda: blocking._habits.pulse.silence_s == 25.0)
    run = running.gateway.hub.find_anybodys(call.run_id)
    assert run is not None
    await until(lambda: len(run.readers) == 0)
    await until(lambda: len(run.readers) == 1)
    call.send(2)
    call.end()
    events = await reader
    assert [event.value for event in events if isinstance(event, Chunk)] == [1, 2]
    assert [event.document.get("from") for event in events if isinstance(event, Start)] == [None, 2]


async def test_a_client_that_never_resumes_loses_a_cut_stream(running: Running) -> None:
    with Client(running.url, resume=NEVER) as client:
        stream = client.stream("count")
        reader = asyncio.create_task(threaded(lambda: list(stream)))
        call = await running.pool.next_call()
        call.send(1)
        await until(lambda: stream.position == 1)
        for protocol in list(running.http.server_state.connections):
            protocol.transport.abort()
        with pytest.raises(StreamLost, match=r"after r_\w+\.1 "):
            await reader
