from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.codec.websocket import SUBPROTOCOL
from gateway.endpoints.duplex import SocketSettings
from tests.conftest import FakeCall, Running, Serve, until, within
from tests.endpoints.conftest import raw


class Client:
    """A client of the subprotocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **members: Any) -> None:
        await self.socket.send(orjson.dumps({"type": kind, **members}).decode())

    async def hear(self) -> dict[str, Any]:
        return dict(orjson.loads(await within(self.socket.recv())))

    async def hear_until(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        frames = [await self.hear()]
        while frames[-1]["type"] != kind or (name is not None and frames[-1].get("id") != name):
            frames.append(await self.hear())
        return frames

    async def subscribe(self, name: str, tool: str = "count", **payload: Any) -> None:
        await self.say("subscribe", id=name, payload={"tool": tool, **payload})

    async def closed(self) -> tuple[int | None, str]:
        """Wait for the server's close frame; return its code and reason."""
        await within(self.socket.wait_closed())
        return self.socket.close_code, self.socket.close_reason or ""


@asynccontextmanager
async def joined(running: Running, *, init: bool = True, **options: Any) -> AsyncIterator[Client]:
    async with connect(f"{running.ws_url}/v1/ws", subprotocols=[SUBPROTOCOL], compression=None, proxy=None, **options) as socket:
        client = Client(socket)
        if init:
            await client.say("connection_init")
            assert (await client.hear())["type"] == "connection_ack"
        yield client


def count_to_three(call: FakeCall) -> None:
    call.send(1, 2)
    call.send(3)
    call.end()


# the handshake


async def test_init_is_acknowledged_with_the_limits(serve: Serve) -> None:
    async with serve(socket_runs_limit=7) as running, joined(running, init=False) as client:
        assert client.socket.subprotocol == SUBPROTOCOL
        await client.say("connection_init", payload={"token": "x"})
        assert await client.hear() == {"type": "connection_ack", "payload": {"max_runs": 7, "max_credit": 1_000_000, "heartbeat_ms": 10000}}


@pytest.mark.parametrize("subprotocols", [None, ["graphql-transport-ws"]])
async def test_a_socket_without_the_subprotocol_is_closed_4406(running: Running, subprotocols: Any) -> None:
    async with connect(f"{running.ws_url}/v1/ws", subprotocols=subprotocols, proxy=None) as socket:
        await within(socket.wait_closed())
        assert (socket.close_code, socket.close_reason) == (4406, f"the subprotocol is {SUBPROTOCOL}")


async def test_a_client_that_does_not_init_in_time_is_closed_4408(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    monkeypatch.setattr("gateway.app.SocketSettings", lambda **options: SocketSettings(init_timeout_s=0.05, **options))
    async with serve() as quick, joined(quick, init=False) as client:
        assert (await client.closed())[0] == 4408


async def test_a_first_frame_that_is_not_init_is_closed_4401(running: Running) -> None:
    async with joined(running, init=False) as client:
        await client.subscribe("a")
        assert (await client.closed())[0] == 4401
    assert running.pool.requests == []


async def test_a_second_init_is_closed_4429(running: Running) -> None:
    async with joined(running) as client:
        await client.say("connection_init")
        assert (await client.closed())[0] == 4429


@pytest.mark.parametrize("frame", ["{", "[]", '{"type":"dance"}', '{"type":"subscribe","id":"a"}', '{"type":"cancel"}', b'{"type":"ping"}'])
@pytest.mark.parametrize("init", [True, False])
async def test_a_bad_frame_is_closed_4400(running: Running, frame: str | bytes, init: bool) -> None:
    async with joined(running, init=init) as client:
        await client.socket.send(frame)
        code, reason = await client.closed()
    assert (code, bool(reason)) == (4400, True)


async def test_a_bad_frame_with_a_long_reason_is_still_closed_4400(running: Running) -> None:
    async with joined(running) as client:
        await client.say("é" * 200)
        assert (await client.closed())[0] == 4400


async def test_a_live_id_again_is_closed_4409(running: Running) -> None:
    name = "é" * 100
    async with joined(running) as client:
        await client.subscribe(name)
        await client.subscribe(name)
        assert (await client.closed())[0] == 4409
    await within((await running.pool.next_call()).cancelled.wait())
    assert len(running.pool.calls) == 1


async def test_an_id_may_be_used_again_after_its_run(running: Running) -> None:
    running.pool.script = count_to_three
    async with joined(running) as client:
        for _ in range(2):
            await client.subscribe("a")
            assert (await client.hear_until("complete"))[-1]["payload"]["status"] == "ok"


async def test_too_many_runs_on_one_socket_is_closed_4413(serve: Serve) -> None:
    async with serve(socket_runs_limit=2) as running, joined(running) as client:
        for name in ("a", "b", "c"):
            await client.subscribe(name)
        assert (await client.closed())[0] == 4413
        await until(lambda: running.open_runs() == 0)


async def test_a_frame_over_the_limit_is_closed_1009(serve: Serve) -> None:
    async with serve(socket_frame_limit_bytes=1000) as running, joined(running) as client:
        await client.subscribe("a", args={"text": "x" * 1000})
        assert (await client.closed())[0] == 1009


async def test_a_bad_frame_amid_flowing_chunks_is_closed_4400_and_cancels(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    async with joined(running) as client:
        await client.subscribe("a")
        call = await running.pool.next_call()

        async def flow() -> None:
            while not call.cancelled.is_set():
                call.send(*range(10))
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flow())
            await client.socket.send("{")
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await client.hear()
            assert client.socket.close_code == 4400
    assert "Exception in ASGI application" not in caplog.text


@pytest.mark.parametrize("headers", [{}, {"Sec_WebSocket_Version": "12"}])
async def test_a_broken_handshake_is_refused_by_http_and_closed(running: Running, headers: dict[str, str]) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    stream = await raw(running, "GET", "/v1/ws", None, Upgrade="websocket", Connection="Upgrade", **headers)
    assert (await stream.rest()).split(b" ")[1] in (b"400", b"426")
    await until(lambda: not running.http.server_state.connections)
    assert faults == []


# runs


async def test_subscribe_sends_start_next_and_complete(running: Running) -> None:
    running.pool.script = count_to_three
    async with joined(running) as client:
        await client.subscribe("a", args={"count": 3}, session="s", timeout_ms=5000)
        frames = await client.hear_until("complete")
    assert [(frame["type"], frame["id"]) for frame in frames] == [
        ("start", "a"),
        ("next", "a"),
        ("next", "a"),
        ("next", "a"),
        ("complete", "a"),
    ]
    run = frames[0]["payload"]["run"]
    assert frames[0]["payload"]["timeout_ms"] == 5000
    assert [(frame["eid"], frame["payload"]) for frame in frames[1:4]] == [(f"{run}.1", 1), (f"{run}.2", 2), (f"{run}.3", 3)]
    assert (frames[-1]["payload"]["status"], frames[-1]["payload"]["chunks"]) == ("ok", 3)
    call = running.pool.calls[0].call
    assert (call.arguments, call.session_id, call.timeout_s, call.streaming) == ({"count": 3}, "s", 5.0, True)


async def test_a_run_that_fails_is_an_error_and_the_socket_goes_on(running: Running) -> None:
    async with joined(running) as client:
        running.pool.script = lambda call: (call.send(1), call.fail())  # type: ignore[assignment, func-returns-value]
        await client.subscribe("a")
        frame = (await client.hear_until("error"))[-1]
        assert (frame["id"], frame["payload"]["error_type"], frame["end"]["chunks"]) == ("a", "ValueError", 1)
        running.pool.script = count_to_three
        await client.subscribe("b")
        await client.hear_until("complete", "b")


async def test_subscribe_that_is_sent_again_with_its_key_joins_the_run(running: Running) -> None:
    """What a client does whose socket was cut ahead of the `start`: it can't know whether the first one arrived."""
    async with joined(running) as first, joined(running) as second:
        await first.subscribe("a", args={"count": 3}, idempotency_key="k")
        call = await running.pool.next_call()
        await second.subscribe("b", args={"count": 3}, idempotency_key="k")
        starts = [(await client.hear_until("start"))[-1]["payload"]["run"] for client in (first, second)]
        assert starts[0] == starts[1]
        count_to_three(call)
        for client in (first, second):
            assert [frame["payload"] for frame in await client.hear_until("complete") if frame["type"] == "next"] == [1, 2, 3]
        await second.subscribe("c", args={"count": 4}, idempotency_key="k")
        assert (await second.hear())["payload"]["type"] == "/problems/idempotency-conflict"
    assert len(running.pool.calls) == 1


@pytest.mark.parametrize(
    ("payload", "slug", "detail"),
    [
        ({}, "invalid-option", "subscribe needs a `tool`"),
        ({"tool": 5}, "invalid-option", "subscribe needs a `tool`"),
        ({"tool": "count", "idempotency_key": 5}, "invalid-option", "idempotency_key is a text"),
        ({"tool": "count", "idempotency_key": ""}, "invalid-option", "allowed: 1 to 255"),
        ({"tool": "nobody"}, "tool-not-found", "nobody"),
        ({"tool": "add", "args": {"a": 1, "b": 1}}, "tool-not-streaming", "not enabled"),
        ({"tool": "count", "args": []}, "invalid-option", "object"),
        ({"tool": "count", "args": {"count": "x"}}, "invalid-arguments", "/count"),
        ({"tool": "opaque", "args": {"a": [[[[[[[[[[1]]]]]]]]]]}}, "invalid-body", "nested deeper"),
        ({"tool": "count", "sesion": "x"}, "invalid-option", "did you mean session? known: tool, args, credit, idempotency_key, session"),
        ({"tool": "count", "timeout_ms": True}, "invalid-option", "timeout_ms"),
        ({"tool": "count", "timeout_ms": 0}, "invalid-option", "_timeout_ms"),
        ({"tool": "count", "session": "a b"}, "invalid-session", "a b"),
        ({"tool": "count", "pool": "x"}, "pool-not-found", "x"),
    ],
)
async def test_subscribe_that_cannot_start_is_an_error_frame(serve: Serve, payload: dict[str, Any], slug: str, detail: str) -> None:
    async with serve(argument_depth_limit=8) as running, joined(running) as client:
        await client.say("subscribe", id="a", payload=payload)
        frame = await client.hear()
        assert (frame["type"], frame["id"], frame["payload"]["type"]) == ("error", "a", f"/problems/{slug}")
        assert detail in frame["payload"]["detail"]
        assert running.pool.requests == []
        await client.say("ping")
        assert await client.hear() == {"type": "pong"}


async def test_many_runs_are_interleaved_and_none_starves(running: Running) -> None:
    async with joined(running) as client:
        for name in ("a", "b", "c"):
            await client.subscribe(name)
        calls = [await running.pool.next_call() for _ in range(3)]
        for _ in range(3):
            await client.hear_until("start")
        for number in range(20):
            for call in calls:
                call.send(number)
            heard = [await client.hear() for _ in calls]
            assert sorted(frame["id"] for frame in heard) == ["a", "b", "c"]
            assert {frame["payload"] for frame in heard} == {number}
        for call in calls:
            call.end()
        assert {(await client.hear())["id"] for _ in calls} == {"a", "b", "c"}


async def test_queued_run_says_its_place(running: Running) -> None:
    running.pool.busy = True
    async with joined(running) as client:
        await client.subscribe("a")
        frames = await client.hear_until("status")
        assert frames[-1]["payload"] == {"state": "queued", "position": 1, "depth": 1, "pool": "default"}
        ticket = await running.pool.next_ticket()
        ticket.grant()
        assert (await client.hear_until("status"))[-1]["payload"] == {"state": "running", "worker": "w-1", "pool": "default", "attempt": 1}


async def test_cancel_stops_the_run_and_says_so(running: Running) -> None:
    async with joined(running) as client:
        await client.subscribe("a")
        call = await running.pool.next_call()
        await client.say("cancel", id="a")
        frame = (await client.hear_until("complete"))[-1]
        assert frame["payload"]["status"] == "cancelled"
        assert call.cancelled.is_set()


async def test_complete_leaves_the_run_which_is_then_cancelled_by_its_policy(running: Running) -> None:
    async with joined(running) as client:
        await client.subscribe("a")
        call = await running.pool.next_call()
        call.send(1)
        await client.hear_until("next")
        await client.say("complete", id="a")
        await within(call.cancelled.wait())
        # Nothing more comes for it: the next frame is the pong.
        await client.say("ping")
        assert await client.hear() == {"type": "pong"}


async def test_complete_leaves_other_readers_their_run(running: Running) -> None:
    async with joined(running) as client:
        await client.subscribe("a")
        call = await running.pool.next_call()
        run = (await client.hear())["payload"]["run"]
        async with running.client.stream("GET", f"/v1/runs/{run}/events"):
            await client.say("complete", id="a")
            await client.say("ping")
            await client.hear_until("pong")
            assert not call.cancelled.is_set()
            call.end()


@pytest.mark.parametrize("kind", ["complete", "cancel"])
async def test_news_of_an_id_that_is_over_are_ignored(running: Running, kind: str) -> None:
    async with joined(running) as client:
        await client.say(kind, id="nobody")
        await client.say("pong")
        await client.say("ping")
        assert await client.hear() == {"type": "pong"}


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_socket_that_closes_cancels_all_its_runs(running: Running, how: str) -> None:
    async with joined(running) as client:
        running.pool.busy = False
        await client.subscribe("running")
        call = await running.pool.next_call()
        running.pool.busy = True
        await client.subscribe("queued")
        ticket = await running.pool.next_ticket()
        if how == "abort":
            client.socket.transport.abort()
        else:
            await client.socket.close()
        await within(call.cancelled.wait())
        await within(ticket.cancelled.wait())
    assert running.open_runs() == 0


async def stall(running: Running, client: Client, name: str = "a", **options: Any) -> FakeCall:
    """Fill a run's way until its worker is made to wait. The client doesn't read."""
    client.socket.transport.pause_reading()
    await client.subscribe(name)
    call = await running.pool.next_call()
    async with asyncio.timeout(10):
        while not call.paused:
            call.send("x" * 50_000)
            await asyncio.sleep(0)
    return call


async def test_a_stalled_socket_is_cut_and_its_runs_are_cancelled(serve: Serve) -> None:
    async with serve(write_timeout_s=0.3) as running, joined(running) as client:
        call = await stall(running, client)
        assert not call.cancelled.is_set()
        await within(call.cancelled.wait())
        await until(lambda: not running.http.server_state.connections)
        client.socket.transport.abort()


async def test_a_stalled_socket_that_closes_cancels_its_runs(running: Running) -> None:
    async with joined(running) as client:
        call = await stall(running, client)
        client.socket.transport.abort()
        await within(call.cancelled.wait())


def blocked(running: Running) -> bool:
    """Whether a socket's writer waits for its reader."""
    return any(not protocol.writable.is_set() for protocol in running.http.server_state.connections if hasattr(protocol, "writable"))


@pytest.mark.parametrize("phase", ["amid a batch", "at the end"])
async def test_complete_while_a_send_is_blocked_leaves_only_that_run(
    running: Running, caplog: pytest.LogCaptureFixture, phase: str
) -> None:
    async with joined(running, max_size=None) as client:
        client.socket.transport.pause_reading()
        await client.subscribe("a")
        call = await running.pool.next_call()
        run = running.gateway.hub.find_anybodys(call.run_id)
        if phase == "amid a batch":
            call.send(*["x" * 50_000] * 400)
        else:
            # One frame fills the way, and the end has to wait behind it.
            call.send("x" * 20_000_000)
            call.end()
        await until(lambda: blocked(running))
        await client.say("complete", id="a")
        await until(lambda: "0 readers" in repr(run))
        client.socket.transport.resume_reading()
        await client.say("ping")
        frames = await client.hear_until("pong")
        assert [frame["type"] for frame in frames].count("next") < 400
        # The id is free, and the socket as good as new.
        running.pool.script = count_to_three
        await client.subscribe("a")
        assert [frame["type"] for frame in await client.hear_until("complete")] == ["start", "next", "next", "next", "complete"]
    assert "Exception" not in caplog.text


async def test_a_slow_socket_pauses_its_worker_and_loses_nothing(serve: Serve) -> None:
    async with serve(reader_lag_bytes=100_000) as running, joined(running) as client:
        call = await stall(running, client)
        sent = call.sink.log.next - 1  # type: ignore[attr-defined]
        client.socket.transport.resume_reading()
        call.end()
        frames = await client.hear_until("complete")
        assert sum(frame["type"] == "next" for frame in frames) == sent


async def test_drain_completes_the_runs_with_status_shutdown(running: Running) -> None:
    async with joined(running) as client:
        await client.subscribe("a")
        await running.pool.next_call()
        await running.gateway.drain_runs()
        assert (await client.hear_until("complete"))[-1]["payload"]["status"] == "shutdown"
        assert (await client.closed())[0] == 1012


# origins


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:{port}", True),
        ("https://app.example", True),
        ("https://evil.example", False),
        ("null", False),
        ("http://[::1", False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/ws", "/v1/tools/count/ws"])
async def test_origin_is_checked_before_the_socket_is_accepted(serve: Serve, origin: str | None, allowed: bool, path: str) -> None:
    async with serve(allowed_origins=("https://app.example",)) as running:
        wanted = None if origin is None else origin.format(port=running.port)
        opening = connect(
            f"{running.ws_url}{path}", subprotocols=[SUBPROTOCOL], additional_headers={"Origin": wanted} if wanted else None, proxy=None
        )  # type: ignore[arg-type]
        if allowed:
            async with opening:
                pass
        else:
            with pytest.raises(InvalidStatus) as caught:
                async with opening:
                    pass
            response = caught.value.response
            assert (response.status_code, orjson.loads(response.body or b"")["type"]) == (403, "/problems/origin-not-allowed")
            assert running.pool.requests == []


# the plain socket


async def hear_all(socket: ClientConnection) -> list[dict[str, Any]]:
    heard = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            heard.append(orjson.loads(await within(socket.recv())))
    return heard


async def test_plain_socket_sends_the_sse_events_and_closes(running: Running) -> None:
    running.pool.script = count_to_three
    async with connect(f"{running.ws_url}/v1/tools/count/ws?count=3", proxy=None) as socket:
        heard = await hear_all(socket)
        assert socket.close_code == 1000
    run = heard[0]["data"]["run"]
    assert [(message["event"], message.get("id")) for message in heard] == [
        ("start", f"{run}.0"),
        ("message", f"{run}.1"),
        ("message", f"{run}.2"),
        ("message", f"{run}.3"),
        ("end", f"{run}.end"),
    ]
    assert running.pool.calls[0].call.arguments == {"count": 3}


@pytest.mark.parametrize(
    ("path", "slug", "close_code"),
    [
        ("/v1/tools/nobody/ws", "tool-not-found", 4400),
        ("/v1/tools/add/ws?a=1&b=2", "tool-not-streaming", 4400),
        ("/v1/tools/count/ws?count=x", "invalid-arguments", 4400),
        ("/v1/tools/count/ws?_x=1", "invalid-option", 4400),
        ("/v1/tools/count/ws?" + "%C3%A9" * 100 + "=1", "invalid-arguments", 4400),
    ],
)
async def test_plain_socket_that_cannot_start_says_why_and_closes(running: Running, path: str, slug: str, close_code: int) -> None:
    async with connect(running.ws_url + path, proxy=None) as socket:
        (message,) = await hear_all(socket)
        assert socket.close_code == close_code
    assert (message["event"], message["data"]["status"], message["data"]["error"]["type"]) == ("end", "error", f"/problems/{slug}")
    assert running.pool.requests == []


@pytest.mark.parametrize("queued", [True, False])
async def test_closing_a_plain_socket_cancels_its_run(running: Running, queued: bool) -> None:
    running.pool.busy = queued
    async with connect(f"{running.ws_url}/v1/tools/count/ws", proxy=None) as socket:
        waiting = await (running.pool.next_ticket() if queued else running.pool.next_call())
        await socket.send("whatever")
        await socket.close()
        await within(waiting.cancelled.wait())
    assert running.open_runs() == 0


async def test_a_stalled_plain_socket_is_cut(serve: Serve) -> None:
    async with (
        serve(write_timeout_s=0.3) as running,
        connect(f"{running.ws_url}/v1/tools/count/ws", compression=None, proxy=None) as socket,
    ):
        socket.transport.pause_reading()
        call = await running.pool.next_call()
        async with asyncio.timeout(10):
            while not call.paused:
                call.send("x" * 50_000)
                await asyncio.sleep(0)
        await within(call.cancelled.wait())
        await until(lambda: not running.http.server_state.connections)
        socket.transport.abort()


async def test_protocol_pings_are_answered(running: Running) -> None:
    async with joined(running) as client:
        await within(await client.socket.ping())
