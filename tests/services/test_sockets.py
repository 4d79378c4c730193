"""Methods of all four kinds over WebSocket, through the whole gateway to a real gRPC server and back."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.codec.websocket import SUBPROTOCOL
from gateway.endpoints.duplex import SocketSettings
from tests.conftest import Running, Serve, until, within
from tests.endpoints.conftest import SSE, messages
from tests.endpoints.people import EVE, auth, person
from tests.services import library
from tests.services.test_http import BOOK, ready
from tests.test_asyncapi import problems_of
from tests.valkey import Valkey

LIBRARY = "test.library.v1.Library"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


class Client:
    """A client of either socket; `name` is put into the frames of a run on the multiplexed one."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, **members: Any) -> None:
        await self.socket.send(orjson.dumps({"type": kind, **members}).decode())

    async def hear(self) -> dict[str, Any]:
        return dict(orjson.loads(await within(self.socket.recv())))

    async def hear_until(self, *kinds: str) -> list[dict[str, Any]]:
        frames = [await self.hear()]
        while frames[-1]["type"] not in kinds:
            frames.append(await self.hear())
        return frames

    async def rest(self) -> list[dict[str, Any]]:
        """Everything up to the terminal frame, which is the last."""
        return await self.hear_until("complete", "error")

    async def closed(self) -> tuple[int | None, str]:
        await within(self.socket.wait_closed())
        return self.socket.close_code, self.socket.close_reason or ""


def payloads(frames: list[dict[str, Any]]) -> list[Any]:
    return [frame["payload"] for frame in frames if frame["type"] == "next"]


@asynccontextmanager
async def calling(running: Running, method: str, query: str = "", service: str = LIBRARY, **options: Any) -> AsyncIterator[Client]:
    url = f"{running.ws_url}/v1/rpc/{service}/{method}/ws{query}"
    async with connect(url, compression=None, proxy=None, **options) as socket:
        yield Client(socket)


@asynccontextmanager
async def many(running: Running, **options: Any) -> AsyncIterator[Client]:
    async with connect(f"{running.ws_url}/v1/ws", subprotocols=[SUBPROTOCOL], compression=None, proxy=None, **options) as socket:
        client = Client(socket)
        await client.say("connection_init")
        assert (await client.hear())["type"] == "connection_ack"
        yield client


@pytest.fixture
async def front(request: pytest.FixtureRequest, serve: Serve, library_server: library.Server) -> AsyncIterator[Running]:
    """The gateway in front of the library, over the transport that a test names; reflection itself is offered as well."""
    service = {
        "name": "library",
        "address": library_server.address,
        "services": [LIBRARY, REFLECTION],
        "headers_in": ["x-tenant"],
        "concurrency": 2,
    }
    async with serve(services=[service], transport=getattr(request, "param", "lane")) as running:
        await ready(running)
        yield running


both_transports = pytest.mark.parametrize("front", ["lane", "grpcio"], indirect=True)


# all four kinds


@both_transports
async def test_both_sides_stream(front: Running) -> None:
    async with calling(front, "Chat") as client:
        start = await client.hear()
        assert (start["type"], start["payload"]["tool"]) == ("start", f"{LIBRARY}/Chat")
        for number, text in enumerate(("one", "two"), start=1):
            await client.say("send", payload={"text": text})
            answer = await client.hear()
            assert answer == {
                "type": "next",
                "eid": f"{start['payload']['run']}.{number}",
                "payload": {"text": text.upper(), "number": number},
            }
        await client.say("end")
        last, complete = await client.rest()
        assert last["payload"] == {"text": "that is all", "number": 2}
        assert (complete["type"], complete["payload"]["status"], complete["payload"]["chunks"]) == ("complete", "ok", 3)
        assert await client.closed() == (1000, "")


@both_transports
async def test_the_client_streams(front: Running) -> None:
    async with calling(front, "AddBooks") as client:
        for number in range(3):
            await client.say("send", payload={"name": f"books/{number}", "ratings": {"a": number}, "cover": "AAE="})
        await client.say("end")
        frames = await client.rest()
        assert payloads(frames) == [{"count": 3, "names": ["books/0", "books/1", "books/2"]}]
        assert frames[-1]["payload"]["status"] == "ok"


@both_transports
async def test_the_server_streams(front: Running) -> None:
    async with calling(front, "Count") as client:
        await client.say("ping")
        assert await client.hear() == {"type": "pong"}
        await client.say("send", payload={"to": 3})
        frames = await client.rest()
        assert payloads(frames) == [{"number": 1}, {"number": 2}, {"number": 3}]
        assert await client.closed() == (1000, "")


@both_transports
async def test_nobody_streams(front: Running) -> None:
    async with calling(front, "GetBook") as client:
        await client.say("send", payload={"name": "shelves/1/books/emma"})
        await client.say("end")
        frames = await client.rest()
        assert (payloads(frames), frames[-1]["payload"]["status"]) == ([BOOK], "ok")


@both_transports
async def test_a_server_is_asked_by_reflection_through_its_own_socket(front: Running) -> None:
    async with calling(front, "ServerReflectionInfo", service=REFLECTION) as client:
        await client.say("send", payload={"listServices": "*"})
        await client.say("send", payload={"file_containing_symbol": LIBRARY})
        frames = await client.hear_until("next")
        listed = frames[-1]["payload"]["listServicesResponse"]["service"]
        assert {"name": LIBRARY} in listed
        found = (await client.hear())["payload"]["fileDescriptorResponse"]["fileDescriptorProto"]
        assert b"library.v1" in base64.b64decode(found[0])
        await client.say("end")
        assert (await client.rest())[-1]["payload"]["status"] == "ok"


async def test_what_is_said_on_a_methods_socket_is_described(front: Running) -> None:
    document = (await front.client.get("/asyncapi.json")).json()
    said = [
        {"type": "send", "payload": {"text": "x"}},
        {"type": "ping"},
        {"type": "credit", "n": 5},
        {"type": "send", "payload": "no message"},
        {"type": "end"},
        {"type": "cancel"},
    ]
    for frame in said:
        assert problems_of(document, "receiveCall", frame) == []
    assert problems_of(document, "receiveCall", {"type": "send"}) != []
    async with calling(front, "Chat") as client:
        for frame in said[:4]:
            await client.socket.send(orjson.dumps(frame).decode())
        heard = [orjson.loads(frame) async for frame in client.socket]
    async with calling(front, "Count") as client:
        await client.say("send", payload={"to": 1})
        heard += await client.rest()
    assert {frame["type"] for frame in heard} == {"start", "next", "pong", "error", "complete"}
    for frame in heard:
        assert problems_of(document, "sendAnswers", frame) == [], frame
    subscribe = {"type": "subscribe", "id": "a", "payload": {"tool": f"{LIBRARY}/Chat", "credit": 5}}
    for frame in (subscribe, {"type": "send", "id": "a", "payload": {}}, {"type": "end", "id": "a"}):
        assert problems_of(document, "receiveFrames", frame) == []


# ends


@both_transports
async def test_a_server_that_ends_before_the_client_is_heard_at_once(front: Running) -> None:
    async with calling(front, "Chat") as client:
        await client.say("send", payload={"text": "bye"})
        frames = await client.rest()
        assert (payloads(frames), frames[-1]["payload"]["status"]) == ([], "ok")
        assert await client.closed() == (1000, "")


@both_transports
async def test_a_server_that_fails_is_an_error_frame_with_its_status(front: Running) -> None:
    async with calling(front, "Chat") as client:
        await client.say("send", payload={"text": "x"})
        await client.say("send", payload={"text": "fail"})
        frames = await client.rest()
        assert payloads(frames) == [{"text": "X", "number": 1}]
        error = frames[-1]
        assert (error["type"], error["payload"]["code"], error["payload"]["detail"]) == ("error", "FAILED_PRECONDITION", "as you wish")
        assert error["end"]["chunks"] == 1
        assert await client.closed() == (1000, "")


@both_transports
async def test_a_server_that_is_lost_is_an_error_frame(front: Running, library_server: library.Server) -> None:
    async with calling(front, "Chat") as client:
        await client.say("send", payload={"text": "x"})
        await client.hear_until("next")
        await library_server.stop()
        error = (await client.rest())[-1]
        assert (error["type"], error["payload"]["code"]) == ("error", "UNAVAILABLE")


async def test_a_deadline_ends_a_call_that_nobody_ends(front: Running, library_server: library.Server) -> None:
    async with calling(front, "Chat", "?_timeout_ms=300") as client:
        error = (await client.rest())[-1]
        assert (error["type"], error["payload"]["code"]) == ("error", "DEADLINE_EXCEEDED")
        await library_server.library.until(lambda: not library_server.library.open["Chat"])


@both_transports
@pytest.mark.parametrize("way", ["close", "vanish"])
async def test_a_client_that_leaves_cancels_the_call_half_closed_or_not(front: Running, library_server: library.Server, way: str) -> None:
    seen = library_server.library
    for half_closed in (False, True):
        method = "Chat" if not half_closed else "AddBooks"
        if half_closed:
            seen.gate = asyncio.Event()
        async with calling(front, method) as client:
            run = (await client.hear())["payload"]["run"]
            await seen.until(lambda method=method: bool(seen.open.get(method)))
            if half_closed:
                await client.say("end")
                await client.say("ping")
                await client.hear_until("pong")
            if way == "close":
                await client.socket.close()
            else:
                client.socket.transport.abort()
            await seen.until(lambda method=method: not seen.open[method])
        assert method in seen.cancelled
        state = (await front.client.get(f"/v1/runs/{run}")).json()
        assert state["state"] == "cancelled"


@both_transports
async def test_cancel_stops_the_call(front: Running, library_server: library.Server) -> None:
    async with calling(front, "Chat") as client:
        await client.hear()
        await client.say("cancel")
        assert (await client.rest())[-1]["payload"]["status"] == "cancelled"
        assert await client.closed() == (1000, "")
    await library_server.library.until(lambda: not library_server.library.open.get("Chat"))


# what is sent is checked


@pytest.mark.parametrize(
    ("payload", "says"),
    [({"text": "x", "numbr": 1}, "numbr"), ({"number": "many"}, "number"), ([1], "Note"), (None, "Note"), ({"text": 5}, "text")],
)
async def test_a_message_that_does_not_fit_ends_the_run_naming_what_is_wrong(
    front: Running, library_server: library.Server, payload: Any, says: str
) -> None:
    async with calling(front, "Chat") as client:
        await client.say("send", payload={"text": "good"})
        await client.hear_until("next")
        await client.say("send", payload=payload)
        error = (await client.rest())[-1]
        assert (error["type"], error["payload"]["type"]) == ("error", "/problems/invalid-message")
        assert says in str(error["payload"])
        assert await client.closed() == (1000, "")
        await library_server.library.until(lambda: not library_server.library.open["Chat"])
        run = error["payload"]["instance"].rpartition("/")[2]
        assert (await front.client.get(f"/v1/runs/{run}")).json()["state"] == "error"


async def test_a_first_message_that_does_not_fit_starts_nothing(front: Running, library_server: library.Server) -> None:
    async with calling(front, "GetBook") as client:
        await client.say("send", payload={"nam": "x"})
        error = await client.hear()
        assert (error["type"], error["payload"]["type"]) == ("error", "/problems/invalid-message")
        assert "nam" in str(error["payload"]["errors"])
        assert (await client.closed())[0] == 4400
    assert library_server.library.seen == []


async def test_a_message_that_nests_too_deep_is_refused(serve: Serve, library_server: library.Server) -> None:
    async with serve(services=[{"name": "library", "address": library_server.address}], argument_depth_limit=5) as running:
        await ready(running)
        async with calling(running, "Chat") as client:
            deep: Any = {}
            for _ in range(10):
                deep = {"text": deep}
            await client.say("send", payload=deep)
            error = (await client.rest())[-1]
            assert (error["type"], error["payload"]["type"]) == ("error", "/problems/invalid-body")


@pytest.mark.parametrize(
    ("method", "frames", "says"),
    [
        ("Chat", ["{"], "not JSON"),
        ("Chat", ["[]"], "a frame is a JSON object"),
        ("Chat", ['{"type":"sned"}'], "known: ping, pong, send, end, credit, cancel"),
        ("Chat", ['{"type":"send"}'], "send needs a `payload`"),
        ("Chat", [b"binary"], "frames are text"),
        ("Chat", ['{"type":"end"}', '{"type":"send","payload":{}}'], "after the `end`"),
        ("Chat", ['{"type":"credit"}'], "credit needs an `n`"),
        ("Count", ['{"type":"end"}'], "the first frame is a `send`"),
        ("Count", ['{"type":"send","payload":{}}', '{"type":"send","payload":{}}'], "takes one message"),
    ],
)
async def test_a_frame_that_breaks_the_protocol_closes_4400_and_cancels(
    front: Running, library_server: library.Server, method: str, frames: list[Any], says: str
) -> None:
    # So that nothing that was said is over before the frame is read.
    seen = library_server.library
    async with calling(front, method) as client:
        for frame in frames:
            await client.socket.send(frame)
        code, reason = await client.closed()
        assert (code, says in reason) == (4400, True), reason
    await until(lambda: front.gateway.hub.open_runs == 0)
    await seen.until(lambda: not seen.open.get(method))


async def test_a_message_that_does_not_come_in_time_closes_4408(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, library_server: library.Server
) -> None:
    monkeypatch.setattr("gateway.app.SocketSettings", lambda **options: SocketSettings(init_timeout_s=0.05, **options))
    async with serve(services=[{"name": "library", "address": library_server.address}]) as running:
        await ready(running)
        async with calling(running, "GetBook") as client:
            assert (await client.closed())[0] == 4408


@pytest.mark.parametrize(
    ("path", "problem", "says"),
    [
        ("Chatt/ws", "rpc-not-found", "Chat"),
        ("Chat/ws?text=x", "invalid-option", "send"),
        ("Chat/ws?_on_disconnect=continue", "invalid-option", "_on_disconnect"),
        ("Chat/ws?_session=s1", "invalid-option", "_session"),
        ("Chat/ws?_credit=0", "invalid-option", "credit"),
        ("Chat/ws?_credit=many", "invalid-option", "credit"),
        ("GetBook/ws?_timeout_ms=x", "invalid-option", "_timeout_ms"),
    ],
)
async def test_a_socket_that_asks_for_what_there_is_not_is_told_so(front: Running, path: str, problem: str, says: str) -> None:
    async with connect(f"{front.ws_url}/v1/rpc/{LIBRARY}/{path}", proxy=None) as socket:
        client = Client(socket)
        error = await client.hear()
        assert (error["type"], error["payload"]["type"]) == ("error", f"/problems/{problem}")
        assert says in str(error["payload"])
        assert (await client.closed())[0] in (4400, 4404)


# backpressure


async def test_a_server_that_reads_nothing_makes_the_client_wait_and_nothing_is_lost(
    front: Running, library_server: library.Server
) -> None:
    gate = library_server.library.gate = asyncio.Event()
    count, title = 400, "x" * 50_000
    async with calling(front, "AddBooks") as client:

        async def send() -> None:
            for number in range(count):
                await client.say("send", payload={"name": f"{number}", "title": title})
            await client.say("end")

        sending = asyncio.ensure_future(send())
        # A message over the bound of what waits would have failed the run.
        await until(lambda: any(stream.is_full for stream in outgoing(front)))
        # Whatever else goes through afterwards has given the client every chance to be read on.
        for _ in range(100):
            await front.client.get("/livez")
        assert not sending.done()
        assert sum(stream.size_bytes for stream in outgoing(front)) < 200_000
        gate.set()
        frames = await client.rest()
        await sending
        assert payloads(frames)[0]["count"] == count


async def test_a_socket_that_is_not_read_is_not_given_up_for_pongs_nobody_reads(serve: Serve, library_server: library.Server) -> None:
    gate = library_server.library.gate = asyncio.Event()
    async with serve(services=[{"name": "library", "address": library_server.address}], socket_ping_s=0.1) as running:
        await ready(running)
        async with calling(running, "AddBooks") as client:
            asyncio.get_running_loop().call_later(1.0, gate.set)
            for number in range(300):
                await client.say("send", payload={"name": f"{number}", "title": "x" * 50_000})
            await client.say("end")
            assert payloads(await client.rest())[0]["count"] == 300


async def test_a_client_that_hangs_up_while_it_is_made_to_wait_cancels_the_call(front: Running, library_server: library.Server) -> None:
    seen = library_server.library
    seen.gate = asyncio.Event()
    async with calling(front, "AddBooks") as client:
        sending = asyncio.ensure_future(flood(client))
        await until(lambda: any(stream.is_full for stream in outgoing(front)))
        client.socket.transport.abort()
        await seen.until(lambda: not seen.open["AddBooks"])
        await sending
    assert seen.cancelled == ["AddBooks"]


async def flood(client: Client) -> None:
    try:
        while True:
            await client.say("send", payload={"title": "x" * 50_000})
    except ConnectionClosed:
        pass


def outgoing(running: Running) -> list[Any]:
    """What the open runs have yet to send."""
    streams = [run._upstream._stream for run in running.gateway.hub.live_runs if run._upstream is not None]
    return [stream._queue for stream in streams if stream is not None]


async def test_credit_limits_what_the_client_is_sent(front: Running) -> None:
    async with calling(front, "Count", "?_credit=2") as client:
        await client.say("send", payload={"to": 5})
        frames = [await client.hear() for _ in range(3)]
        assert payloads(frames) == [{"number": 1}, {"number": 2}]
        await client.say("ping")
        assert await client.hear() == {"type": "pong"}
        await client.say("credit", n=3)
        assert [frame["payload"]["number"] for frame in (await client.rest())[:-1]] == [3, 4, 5]


async def test_messages_sent_while_the_call_waits_for_its_place_arrive(front: Running, library_server: library.Server) -> None:
    async with calling(front, "Chat") as first, calling(front, "Chat") as second, calling(front, "AddBooks") as third:
        # Two at once is what the service has room for.
        assert (await first.hear())["type"] == (await second.hear())["type"] == "start"
        await until(lambda: front.gateway.pools["library"].snapshot()["queued"] == 1)
        await third.say("send", payload={"name": "early"})
        await third.say("end")
        await third.hear_until("status")
        await first.say("end")
        await first.rest()
        assert payloads(await third.rest()) == [{"count": 1, "names": ["early"]}]


# a run as any other


async def test_others_see_the_run_and_may_end_it(front: Running) -> None:
    async with calling(front, "Chat") as client:
        run = (await client.hear())["payload"]["run"]
        await client.say("send", payload={"text": "hear this"})
        await client.hear_until("next")
        listed = (await front.client.get("/v1/runs")).json()["runs"]
        assert [(entry["run"], entry["tool"], entry["state"]) for entry in listed] == [(run, f"{LIBRARY}/Chat", "running")]
        async with front.client.stream("GET", f"/v1/runs/{run}/events?_role=observer", headers=SSE) as events:
            text = b""
            async for part in events.aiter_bytes():
                text += part
                if b"HEAR THIS" in text:
                    break
        assert (await front.client.delete(f"/v1/runs/{run}")).status_code in (200, 202, 204)
        assert (await client.rest())[-1]["payload"]["status"] == "cancelled"
    replayed = messages((await front.client.get(f"/v1/runs/{run}/events", headers=SSE)).content)
    assert [data for event, data in replayed if event == "message"] == [{"text": "HEAR THIS", "number": 1}]
    assert replayed[-1][1]["status"] == "cancelled"


async def test_a_run_whose_sender_left_ends_for_those_who_read_it_as_well(front: Running) -> None:
    async with calling(front, "Chat") as client:
        run = (await client.hear())["payload"]["run"]
        await client.say("send", payload={"text": "x"})
        await client.hear_until("next")
        reading = asyncio.ensure_future(front.client.get(f"/v1/runs/{run}/events", headers=SSE))
        await until(lambda: len(front.gateway.hub.find_anybodys(run).readers) == 2)
        await client.socket.close()
        assert messages((await within(reading)).content)[-1][1]["status"] == "cancelled"


async def test_headers_that_the_settings_name_become_metadata(front: Running) -> None:
    async with calling(front, "Headers", additional_headers={"x-tenant": "acme", "x-other": "no"}) as client:
        await client.say("send", payload={})
        metadata = payloads(await client.rest())[0]["metadata"]
        assert metadata["x-tenant"] == "acme"
        assert "x-other" not in metadata


async def test_a_caller_who_may_not_run_a_method_is_refused_on_either_socket(serve: Serve, library_server: library.Server) -> None:
    ann = person("ann", f"tools:{LIBRARY}/Count")
    keys = auth(keys="\n".join(each.line for each in (ann, EVE)))
    async with serve(services=[{"name": "library", "address": library_server.address}], auth=keys) as running:
        await ready(running)
        async with calling(running, "Count", additional_headers=ann.bearer) as client:
            await client.say("send", payload={"to": 1})
            assert payloads(await client.rest()) == [{"number": 1}]
        for method in ("Chat", "GetBook"):
            async with calling(running, method, additional_headers=ann.bearer) as client:
                assert (await client.hear())["payload"]["type"] == "/problems/scope-missing"
                assert (await client.closed())[0] == 4403
        async with many(running, additional_headers=ann.bearer) as client:
            await client.say("subscribe", id="a", payload={"tool": f"{LIBRARY}/Chat"})
            assert (await client.hear())["payload"]["type"] == "/problems/scope-missing"
        async with calling(running, "Chat") as client:
            assert (await client.closed())[0] == 4401
    assert library_server.library.open == {"Count": 0}


async def test_a_callers_open_calls_are_counted(serve: Serve, library_server: library.Server) -> None:
    limits = {"streams": 1, "count_loopback": True}
    async with serve(services=[{"name": "library", "address": library_server.address}], limits=limits) as running:
        await ready(running)
        async with calling(running, "Chat") as first:
            await first.hear()
            async with calling(running, "Chat") as second:
                assert (await second.hear())["payload"]["type"] == "/problems/quota-exceeded"
                assert (await second.closed())[0] == 4413
            await first.say("end")
            await first.rest()
        async with calling(running, "Chat") as third:
            assert (await third.hear())["type"] == "start"


async def test_a_call_is_seen_on_other_gateways(serve: Serve, library_server: library.Server) -> None:
    valkey = Valkey()
    try:
        services = [{"name": "library", "address": library_server.address}]
        async with serve(services=services, runlog={"url": valkey.url}) as one, serve(runlog={"url": valkey.url}) as other:
            await ready(one)
            async with calling(one, "Chat") as client:
                run = (await client.hear())["payload"]["run"]
                await client.say("send", payload={"text": "hear this"})
                await client.hear_until("next")
                reading = asyncio.ensure_future(other.client.get(f"/v1/runs/{run}/events?_role=observer", headers=SSE))
                await client.say("send", payload={"texd": "x"})
                assert (await client.rest())[-1]["payload"]["type"] == "/problems/invalid-message"
            events = messages((await within(reading)).content)
            assert [data["text"] for event, data in events if event == "message"] == ["HEAR THIS"]
            assert events[-1][1]["error"]["type"] == "/problems/invalid-message"
    finally:
        valkey.close()


async def test_a_drain_lets_calls_end_and_then_ends_them(serve: Serve, library_server: library.Server) -> None:
    async with (
        serve(services=[{"name": "library", "address": library_server.address}], drain_timeout_s=0.5) as running,
        asyncio.TaskGroup() as tasks,
    ):
        await ready(running)
        async with calling(running, "Chat") as ends, calling(running, "Chat") as stays, calling(running, "GetBook") as asks:
            await ends.hear()
            await stays.hear()
            await until(lambda: len(running.gateway.sockets) == 3)
            draining = tasks.create_task(running.gateway.drain_runs())
            # One that has asked for nothing has nothing to wait for.
            assert (await asks.closed())[0] == 1012
            await ends.say("send", payload={"text": "x"})
            await ends.say("end")
            assert [frame["payload"].get("text") for frame in (await ends.rest())[:-1]] == ["X", "that is all"]
            assert (await stays.rest())[-1]["payload"]["status"] == "shutdown"
            await within(draining)
            async with calling(running, "Chat") as late:
                assert (await late.closed())[0] == 1012


# on one socket with others


async def test_calls_of_all_kinds_share_a_socket(front: Running) -> None:
    async with many(front) as client:
        await client.say("subscribe", id="chat", payload={"tool": f"{LIBRARY}/Chat"})
        await client.say("subscribe", id="add", payload={"tool": f"{LIBRARY}/AddBooks", "credit": 5})
        assert {(await client.hear())["id"], (await client.hear())["id"]} == {"chat", "add"}
        await client.say("send", id="chat", payload={"text": "a"})
        await client.say("send", id="add", payload={"name": "b"})
        await client.say("end", id="add")
        heard = [await client.hear() for _ in range(3)]
        by_run = {name: payloads([frame for frame in heard if frame["id"] == name]) for name in ("chat", "add")}
        assert by_run == {"chat": [{"text": "A", "number": 1}], "add": [{"count": 1, "names": ["b"]}]}
        await client.say("subscribe", id="count", payload={"tool": f"{LIBRARY}/Count", "args": {"to": 2}})
        assert payloads(await client.rest()) == [{"number": 1}, {"number": 2}]
        await client.say("subscribe", id="get", payload={"tool": f"{LIBRARY}/GetBook", "args": {"name": "shelves/1/books/emma"}})
        assert payloads(await client.rest()) == [BOOK]
        await client.say("end", id="chat")
        assert (await client.rest())[-1]["payload"]["status"] == "ok"


async def test_a_bad_message_ends_its_run_and_the_socket_goes_on(front: Running) -> None:
    async with many(front) as client:
        await client.say("subscribe", id="a", payload={"tool": f"{LIBRARY}/Chat"})
        await client.hear()
        await client.say("send", id="a", payload={"texd": "x"})
        error = (await client.rest())[-1]
        assert (error["type"], error["id"], error["payload"]["type"]) == ("error", "a", "/problems/invalid-message")
        assert "texd" in str(error["payload"])
        # Old news: the run was over before this was sent, for all the client knew.
        await client.say("send", id="a", payload={"text": "late"})
        await client.say("end", id="a")
        await client.say("subscribe", id="b", payload={"tool": f"{LIBRARY}/Count", "args": {"to": 1}})
        assert payloads(await client.rest()) == [{"number": 1}]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"tool": f"{LIBRARY}/Chat", "args": {"text": "x"}}, "args"),
        ({"tool": f"{LIBRARY}/Chat", "idempotency_key": "k"}, "idempotency_key"),
        ({"tool": f"{LIBRARY}/Chat", "on_disconnect": "grace:5s"}, "_on_disconnect"),
        ({"tool": f"{LIBRARY}/Chat", "session": "s"}, "_session"),
        ({"tool": f"{LIBRARY}/Count", "args": {"too": 1}}, "too"),
        ({"tool": f"{LIBRARY}/Nothing"}, "Nothing"),
    ],
)
async def test_a_subscription_that_makes_no_sense_is_refused(front: Running, payload: Any, says: str) -> None:
    async with many(front) as client:
        await client.say("subscribe", id="a", payload=payload)
        error = await client.hear()
        assert (error["type"], error["id"], says in str(error["payload"])) == ("error", "a", True)


async def test_a_message_for_a_run_that_takes_none_closes_4400(front: Running) -> None:
    async with many(front) as client:
        await client.say("subscribe", id="a", payload={"tool": f"{LIBRARY}/Count", "args": {}, "credit": 1})
        await client.hear()
        await client.say("send", id="a", payload={})
        code, reason = await client.closed()
        assert (code, "takes no messages" in reason) == (4400, True)


@pytest.mark.parametrize("way", ["complete", "close"])
async def test_leaving_a_run_that_is_sent_to_cancels_it(front: Running, library_server: library.Server, way: str) -> None:
    seen = library_server.library
    async with many(front) as client:
        await client.say("subscribe", id="a", payload={"tool": f"{LIBRARY}/Chat"})
        await client.hear()
        await seen.until(lambda: bool(seen.open.get("Chat")))
        if way == "complete":
            await client.say("complete", id="a")
        else:
            await client.socket.close()
        await seen.until(lambda: not seen.open["Chat"])
    assert seen.cancelled == ["Chat"]
