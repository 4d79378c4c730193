"""One-time tickets: for one path, once, and after that for nothing but to go on with the run that they started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.auth import tickets
from gateway.codec.websocket import SUBPROTOCOL
from tests.conftest import FakeCall, Running, Serve, within
from tests.endpoints.conftest import SSE, messages, problem
from tests.endpoints.people import ADA, EVE, auth
from tests.endpoints.test_auth_outsider import closed

STREAM = "/v1/tools/count/stream"


def three(call: FakeCall) -> None:
    call.send(1, 2, 3)
    call.end()


@pytest.fixture
async def guarded(serve: Serve) -> AsyncIterator[Running]:
    async with serve(auth=auth(), first_byte_hold_s=0.05) as running:
        running.pool.script = three
        yield running


async def ticket(running: Running, path: str = STREAM, **options: Any) -> dict[str, Any]:
    answer = await running.client.post("/v1/tickets", json={"path": path}, headers=ADA.bearer)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store"), answer.text
    document: dict[str, Any] = answer.json()
    return document


async def run_of(running: Running, url: str) -> str:
    answer = await running.client.get(url, headers=SSE)
    assert answer.status_code == 200, answer.text
    return str(messages(answer.content)[0][1]["run"])


async def test_a_ticket_starts_a_stream_once_as_its_caller(guarded: Running) -> None:
    given = await ticket(guarded, f"{STREAM}?count=3")
    assert (given["url"], given["expires_in_s"]) == (f"{STREAM}?count=3&_ticket={given['ticket']}", 60)
    await run_of(guarded, given["url"])
    assert [(call.call.caller.id, call.call.arguments) for call in guarded.pool.calls] == [("key:ada", {"count": 3})]
    again = await guarded.client.get(given["url"], headers=SSE)
    assert "used before" in problem(again, 401, "invalid-credential")["detail"]
    assert len(guarded.pool.calls) == 1


async def test_a_used_ticket_goes_on_with_its_run_and_no_other(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    url, other_url = (await ticket(guarded))["url"], (await ticket(guarded))["url"]
    run, other = await run_of(guarded, url), await run_of(guarded, other_url)
    # However old it is by then.
    monkeypatch.setattr("gateway.endpoints.authentication.TTL_S", -1.0)
    rest = await guarded.client.get(url, headers={**SSE, "Last-Event-ID": f"{run}.1"})
    assert [data for event, data in messages(rest.content) if event == "message"] == [2, 3]
    assert (await guarded.client.get(url, headers={**SSE, "Last-Event-ID": f"{run}.end"})).status_code == 204
    for name in (other, "r_01M84YH961VSHM9HBZ2MDR7BNJ"):
        problem(await guarded.client.get(url, headers={**SSE, "Last-Event-ID": f"{name}.1"}), 401, "invalid-credential")
    problem(await guarded.client.get(url, headers={**SSE, "Last-Event-ID": "nonsense"}), 401, "invalid-credential")
    assert len(guarded.pool.calls) == 2


async def test_a_ticket_for_a_runs_events_goes_on_with_that_run(guarded: Running) -> None:
    run = await run_of(guarded, (await ticket(guarded))["url"])
    given = await ticket(guarded, f"/v1/runs/{run}/events")
    assert (await guarded.client.get(given["url"], headers=SSE)).status_code == 200
    problem(await guarded.client.get(given["url"], headers=SSE), 401, "invalid-credential")
    rest = await guarded.client.get(given["url"], headers={**SSE, "Last-Event-ID": f"{run}.2"})
    assert [data for event, data in messages(rest.content) if event == "message"] == [3]


async def test_a_used_ticket_is_over_when_its_run_is_forgotten(serve: Serve) -> None:
    async with serve(auth=auth(), runlog={"kept_runs_limit": 1}) as running:
        running.pool.script = three
        url = (await ticket(running))["url"]
        run = await run_of(running, url)
        await run_of(running, (await ticket(running))["url"])
        problem(await running.client.get(url, headers={**SSE, "Last-Event-ID": f"{run}.1"}), 401, "invalid-credential")


async def test_a_ticket_is_too_old_after_its_time(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    url = (await ticket(guarded))["url"]
    assert tickets.TTL_S == 60
    monkeypatch.setattr("gateway.endpoints.authentication.TTL_S", -1.0)
    assert "older than" in problem(await guarded.client.get(url, headers=SSE), 401, "invalid-credential")["detail"]
    assert guarded.pool.calls == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/tools/typed/stream"), ("GET", "/v1/runs"), ("GET", "/v1/tools"), ("POST", STREAM), ("HEAD", STREAM)]
)
async def test_a_ticket_is_for_one_path_and_for_who_can_send_no_header(guarded: Running, method: str, path: str) -> None:
    text = (await ticket(guarded))["ticket"]
    answer = await guarded.client.request(method, f"{path}?_ticket={text}", headers=SSE)
    assert answer.status_code == 401
    assert text not in answer.text
    assert guarded.pool.calls == []


@pytest.mark.parametrize("text", ["", "x", "a.b.c"])
async def test_what_is_no_ticket_is_refused(guarded: Running, text: str) -> None:
    problem(await guarded.client.get(f"{STREAM}?_ticket={text}", headers=SSE), 401, "invalid-credential")


@pytest.mark.parametrize("path", ["", "/v1/tools", "/v1/tickets", "/v1/signin", "https://x/v1/ws", "/v1/tools/a/b/stream", 7, None])
async def test_a_ticket_is_given_for_streams_and_sockets_alone(guarded: Running, path: Any) -> None:
    answer = await guarded.client.post("/v1/tickets", json={"path": path}, headers=ADA.bearer)
    assert "/v1/ws" in problem(answer, 400, "invalid-body")["errors"][0]["detail"]


async def test_a_ticket_reaches_as_far_as_its_caller(guarded: Running) -> None:
    given = (await guarded.client.post("/v1/tickets", json={"path": STREAM}, headers=EVE.bearer)).json()
    problem(await guarded.client.get(given["url"], headers=SSE), 403, "scope-missing")


async def test_a_ticket_is_of_no_use_once_its_callers_key_is_gone(guarded: Running) -> None:
    url = (await ticket(guarded))["url"]
    assert guarded.gateway.access is not None
    guarded.gateway.access.keys.replace([])
    problem(await guarded.client.get(url, headers=SSE), 401, "invalid-credential")


async def test_the_ticket_is_in_no_link_and_no_problem(guarded: Running) -> None:
    given = await ticket(guarded)
    answer = await guarded.client.get(f"{given['url']}&whole=7", headers=SSE)
    problem(answer, 422, "invalid-arguments")
    assert given["ticket"] not in answer.text
    given = await ticket(guarded)
    answer = await guarded.client.get(given["url"], headers=SSE)
    assert given["ticket"] not in answer.text + str(answer.headers)


async def test_a_ticket_opens_a_socket_once(guarded: Running) -> None:
    given = await ticket(guarded, "/v1/ws")
    url = f"{guarded.ws_url}{given['url']}"
    async with connect(url, subprotocols=[SUBPROTOCOL], proxy=None) as socket:  # type: ignore[list-item]
        await socket.send('{"type":"connection_init"}')
        assert "connection_ack" in str(await within(socket.recv()))
        await socket.send('{"type":"subscribe","id":"a","payload":{"tool":"count"}}')
        call = await guarded.pool.next_call()
    assert call.call.caller.id == "key:ada"
    assert (await closed(url, subprotocols=[SUBPROTOCOL]))[0] == 4401
    # Not even to go on with a run that it started: a socket like this can start others.
    headers = {"Last-Event-ID": f"{call.run_id}.0"}
    assert (await closed(url, subprotocols=[SUBPROTOCOL], additional_headers=headers))[0] == 4401


async def test_a_ticket_opens_a_plain_socket_once(guarded: Running) -> None:
    url = guarded.ws_url + (await ticket(guarded, "/v1/tools/count/ws"))["url"]
    assert (await closed(url))[0] == 1000
    assert (await closed(url))[0] == 4401
    assert len(guarded.pool.calls) == 1
