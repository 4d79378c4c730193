"""Bob at every HTTP and WebSocket door of what is Ada's: to him it is not there, in the words for what never was."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from gateway.codec.websocket import SUBPROTOCOL
from tests.conftest import FakeCall, Running, Serve, until, within
from tests.endpoints.conftest import JSON, NDJSON, SSE, messages, problem
from tests.endpoints.people import ADA, ADMIN, BOB, EVE, Person, auth
from tests.endpoints.test_websocket import joined

UNKNOWN = "r_01M84YH961VSHM9HBZ2MDR7BNJ"


@pytest.fixture
async def guarded(serve: Serve) -> AsyncIterator[Running]:
    async with serve(auth=auth(), first_byte_hold_s=0.05) as running:
        yield running


async def begun(running: Running, path: str = "/v1/tools/count/runs", **headers: str) -> tuple[str, FakeCall]:
    """A run of Ada's that goes on, with a chunk."""
    answer = await running.client.post(path, json={}, headers={**ADA.bearer, **headers})
    assert answer.status_code == 202, answer.text
    call = await running.pool.next_call()
    call.send("secret of Ada's")
    return answer.json()["run"], call


DOORS = [
    ("GET", ""),
    ("GET", "/result"),
    ("GET", "/events"),
    ("GET", "/events?_from=live"),
    ("DELETE", ""),
    ("POST", "/cancel"),
]


@pytest.mark.parametrize(("method", "door"), DOORS)
@pytest.mark.parametrize("over", [False, True])
async def test_another_callers_run_is_answered_as_one_that_never_was(guarded: Running, method: str, door: str, over: bool) -> None:
    run, call = await begun(guarded)
    if over:
        call.end()
    # The answers differ by nothing, so they have to have the same request id.
    headers = {**BOB.bearer, "X-Request-Id": "same"}
    hers, unknown = [await guarded.client.request(method, f"/v1/runs/{name}{door}", headers=headers) for name in (run, UNKNOWN)]
    problem(hers, 404, "run-not-found")
    assert hers.text.replace(run, UNKNOWN) == unknown.text
    assert not call.cancelled.is_set()
    assert (await guarded.client.get(f"/v1/runs/{run}", headers=ADA.bearer)).json()["state"] == ("ok" if over else "running")


async def test_a_forgotten_run_of_another_caller_is_not_even_expired(serve: Serve) -> None:
    async with serve(auth=auth(), runlog={"kept_runs_limit": 1}) as running:
        for _ in range(2):
            _, call = await begun(running)
            call.end()
        ((_, first),) = running.gateway.hub._runs._expired
        problem(await running.client.get(f"/v1/runs/{first}", headers=ADA.bearer), 410, "run-expired")
        problem(await running.client.get(f"/v1/runs/{first}", headers=BOB.bearer), 404, "run-not-found")


@pytest.mark.parametrize("accept", [SSE, NDJSON, JSON])
async def test_resuming_anothers_run_on_a_tools_url_says_expired_and_starts_nothing(guarded: Running, accept: dict[str, str]) -> None:
    run, _ = await begun(guarded)
    answer = await guarded.client.get("/v1/tools/count/stream", headers={**accept, **BOB.bearer, "Last-Event-ID": f"{run}.0"})
    assert answer.status_code == 200
    assert '"expired"' in answer.text
    assert "secret" not in answer.text
    assert len(guarded.pool.calls) == 1


@pytest.mark.parametrize("query", ["", "?_from="])
async def test_resuming_anothers_events_says_expired(guarded: Running, query: str) -> None:
    run, _ = await begun(guarded)
    headers = {**SSE, **BOB.bearer} | ({} if query else {"Last-Event-ID": f"{run}.0"})
    answer = await guarded.client.get(f"/v1/runs/{run}/events{query and f'{query}{run}.0'}", headers=headers)
    assert [event for event, _ in messages(answer.content)] == ["end"]
    assert "secret" not in answer.text


async def test_the_list_shows_ones_own_and_an_admin_everybodys(guarded: Running) -> None:
    hers, _ = await begun(guarded)
    his = (await guarded.client.post("/v1/tools/count/runs", json={}, headers=BOB.bearer)).json()["run"]

    async def listed(person: Any) -> list[str]:
        return [entry["run"] for entry in (await guarded.client.get("/v1/runs", headers=person.bearer)).json()["runs"]]

    assert (await listed(ADA), await listed(BOB)) == ([hers], [his])
    assert sorted(await listed(ADMIN)) == sorted([hers, his])


async def test_an_admin_sees_and_cancels_everybodys_runs(guarded: Running) -> None:
    run, call = await begun(guarded)
    assert (await guarded.client.get(f"/v1/runs/{run}", headers=ADMIN.bearer)).status_code == 200
    assert (await guarded.client.delete(f"/v1/runs/{run}", headers=ADMIN.bearer)).json()["state"] == "cancelled"
    assert call.cancelled.is_set()


async def test_the_same_idempotency_key_of_another_caller_is_another_key(guarded: Running) -> None:
    run, _ = await begun(guarded, **{"Idempotency-Key": "k"})
    # With another body: for Ada that would be a conflict.
    his = await guarded.client.post("/v1/tools/count/runs", json={"count": 5}, headers={**BOB.bearer, "Idempotency-Key": "k"})
    assert his.status_code == 202
    assert his.json()["run"] != run
    again = await guarded.client.post("/v1/tools/count/runs", json={}, headers={**ADA.bearer, "Idempotency-Key": "k"})
    assert again.json()["run"] == run


async def test_the_same_session_id_of_another_caller_is_another_session(guarded: Running) -> None:
    client = guarded.client
    made = await client.post("/v1/sessions", json={"id": "s", "metadata": {"whose": "ada"}}, headers=ADA.bearer)
    assert made.status_code == 201
    for method in ("GET", "DELETE"):
        problem(await client.request(method, "/v1/sessions/s", headers=BOB.bearer), 404, "session-not-found")
    his = await client.post("/v1/sessions", json={"id": "s"}, headers=BOB.bearer)
    assert (his.status_code, his.json()["metadata"], his.json()["id"]) == (201, {}, "s")
    for person in (ADA, BOB):
        answer = await client.post("/v1/tools/count/runs?_session=s", json={}, headers=person.bearer)
        assert answer.json()["session"] == "s"
    # What a worker keeps of a session it keeps by this name.
    hers, its = (call.call.session_id for call in guarded.pool.calls)
    assert hers != its
    assert (await client.get("/v1/sessions/s", headers=ADA.bearer)).json()["metadata"] == {"whose": "ada"}
    assert (await client.delete("/v1/sessions/s", headers=BOB.bearer)).status_code == 204
    assert (await client.get("/v1/sessions/s", headers=ADA.bearer)).status_code == 200


async def test_a_socket_joins_no_run_of_another_caller(guarded: Running) -> None:
    run, call = await begun(guarded)
    async with joined(guarded, additional_headers=BOB.bearer) as client:
        for payload, slug in (({"run": run}, "run-not-found"), ({"last_event_id": f"{run}.0"}, "run-expired")):
            await client.say("attach", id="a", payload=payload)
            frame = await client.hear()
            assert (frame["type"], frame["payload"]["type"]) == ("error", f"/problems/{slug}")
            await client.say("cancel", id="a")
        await client.say("ping")
        assert (await client.hear())["type"] == "pong"
    assert not call.cancelled.is_set()


async def test_a_plain_socket_resumes_no_run_of_another_caller(guarded: Running) -> None:
    run, _ = await begun(guarded)
    headers = {**BOB.bearer, "Last-Event-ID": f"{run}.0"}
    async with connect(f"{guarded.ws_url}/v1/tools/count/ws", additional_headers=headers, proxy=None) as socket:
        event = orjson.loads(await within(socket.recv()))
    assert (event["event"], event["data"]["status"]) == ("end", "expired")
    assert len(guarded.pool.calls) == 1


# sockets and who they are


async def closed(url: str, **options: Any) -> tuple[int | None, str]:
    async with connect(url, proxy=None, **options) as socket:
        await within(socket.wait_closed())
        return socket.close_code, socket.close_reason or ""


async def test_a_socket_says_who_it_is_in_its_first_frame(guarded: Running) -> None:
    async with joined(guarded, init=False) as client:
        await client.say("connection_init", payload={"token": ADA.key})
        assert (await client.hear())["type"] == "connection_ack"
        await client.subscribe("a")
        assert (await guarded.pool.next_call()).call.caller.id == "key:ada"


@pytest.mark.parametrize("payload", [{}, {"token": "gw_wrong"}, {"token": 7}, {"token": ""}])
async def test_a_socket_that_does_not_say_who_it_is_is_closed_4401(guarded: Running, payload: dict[str, Any]) -> None:
    async with joined(guarded, init=False) as client:
        await client.say("connection_init", payload=payload)
        assert (await client.closed())[0] == 4401


async def test_a_subprotocol_may_carry_the_key_and_is_never_echoed(guarded: Running) -> None:
    token = f"bearer.{urlsafe_b64encode(ADA.key.encode()).decode().rstrip('=')}"
    for offered in ([SUBPROTOCOL, token], [token, SUBPROTOCOL]):
        async with connect(f"{guarded.ws_url}/v1/ws", subprotocols=offered, proxy=None) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == SUBPROTOCOL
            await socket.send('{"type":"connection_init"}')
            assert orjson.loads(await within(socket.recv()))["type"] == "connection_ack"


@pytest.mark.parametrize("token", ["bearer.!", "bearer.", "bearer.Z3dfd3Jvbmc"])
async def test_a_subprotocol_with_a_bad_key_closes_4401(guarded: Running, token: str) -> None:
    assert (await closed(f"{guarded.ws_url}/v1/ws", subprotocols=[SUBPROTOCOL, token]))[0] == 4401


async def test_handshake_and_first_frame_must_not_be_two_callers(guarded: Running) -> None:
    async with joined(guarded, init=False, additional_headers=ADA.bearer) as client:
        await client.say("connection_init", payload={"token": BOB.key})
        assert await client.closed() == (4401, "the token is another credential than that of the handshake")


async def cookie(running: Running, person: Person, **headers: str) -> dict[str, str]:
    """The header fields of a handshake that a browser has made after a sign-in."""
    answer = await running.client.post("/v1/signin", json={"token": person.key}, headers={"Sec-Fetch-Site": "same-origin"})
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0], "Origin": running.url, **headers}


async def test_a_cookie_says_who_a_socket_is_that_says_nothing_else(guarded: Running) -> None:
    async with joined(guarded, additional_headers=await cookie(guarded, ADA)) as client:
        await client.subscribe("a")
        assert (await guarded.pool.next_call()).call.caller.id == "key:ada"


@pytest.mark.parametrize("stale", [False, True])
async def test_a_token_in_the_first_frame_goes_before_the_cookie(guarded: Running, stale: bool) -> None:
    headers = {"Cookie": "snakepit_session=stale"} if stale else await cookie(guarded, ADA)
    async with joined(guarded, init=False, additional_headers=headers) as client:
        await client.say("connection_init", payload={"token": BOB.key})
        assert (await client.hear())["type"] == "connection_ack"
        await client.subscribe("a")
        assert (await guarded.pool.next_call()).call.caller.id == "key:bob"


async def test_the_access_log_names_who_a_socket_turned_out_to_be(serve: Serve) -> None:
    async with serve(auth=auth(), log={"access": True}) as running:
        headers = await cookie(running, ADA)
        with capture_logs() as logs:
            async with joined(running, additional_headers=headers):
                pass
            async with joined(running, init=False) as client:
                await client.say("connection_init", payload={"token": BOB.key})
                await client.hear()
            await until(lambda: [line["caller"] for line in logs if line["event"] == "request"] == ["key:ada", "key:bob"])


async def test_a_cookie_that_is_no_good_closes_4401_where_nothing_else_is_said(guarded: Running) -> None:
    headers = {**await cookie(guarded, ADA), "Cookie": "snakepit_session=stale"}
    async with joined(guarded, init=False, additional_headers=headers) as client:
        await client.say("connection_init")
        assert await client.closed() == (4401, "The session or ticket was not given by this gateway, or was changed")


async def test_a_cookie_counts_for_no_socket_of_another_page(serve: Serve) -> None:
    async with serve(auth=auth(), allowed_origins=["*"]) as running:
        headers = await cookie(running, ADA, Origin="https://evil.example")
        async with joined(running, init=False, additional_headers=headers) as client:
            await client.say("connection_init")
            assert (await client.closed())[0] == 4403


async def test_a_plain_socket_needs_a_credential_in_its_handshake(guarded: Running) -> None:
    url = f"{guarded.ws_url}/v1/tools/count/ws"
    code, reason = await closed(url)
    assert (code, "credential" in reason) == (4401, True)
    async with connect(url, additional_headers=ADA.bearer, proxy=None):
        assert (await guarded.pool.next_call()).call.caller.id == "key:ada"


async def test_a_tool_out_of_reach_closes_a_plain_socket_4403(guarded: Running) -> None:
    assert (await closed(f"{guarded.ws_url}/v1/tools/count/ws", additional_headers=EVE.bearer))[0] == 4403
    async with joined(guarded, additional_headers=EVE.bearer) as client:
        await client.subscribe("a")
        frame = await client.hear()
        assert (frame["type"], frame["payload"]["scope"]) == ("error", "tools:count")
    await until(lambda: guarded.pool.calls == [])
