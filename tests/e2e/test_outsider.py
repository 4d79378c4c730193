"""Bob at every door of two gateways on one log, where what runs is Ada's: he reads, lists, stops and starts nothing of hers.

The gateway that he asks is in turn the one that executes the run and the other one. What the gateways have written down at the
end holds none of the secrets that were sent to them.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest
import websockets

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.auth.provider import AUDIENCE, ISSUER, Provider, provided
from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import Served, bridge, events_of, read_sse, tool_request
from tests.e2e.pair import Pair, paired
from tests.e2e.socketclient import SUBPROTOCOL, SocketClient
from tests.endpoints.people import ADA, ADMIN, BOB, PEOPLE, SECRET
from tests.valkey import Valkey

# All that was ever sent to a gateway here and must stand in no log.
sent: set[str] = {SECRET, *(person.key for person in PEOPLE)}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with provided() as provider:
        yield provider


@pytest.fixture(scope="module", params=BUILDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Pair]:
    lines = "\n".join(person.line for person in PEOPLE)
    more = f'[auth]\nkeys = """\n{lines}\n"""\nsecret = "{SECRET}"\njwks = "{provider.url}"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
    environment = {"GATEWAY_KEY": ADMIN.key, "GATEWAY_LOG__LEVEL": "debug"}
    packages = packages_of(request.param)
    valkey = Valkey()
    directory = tmp_path_factory.mktemp("outsider")
    with paired(valkey, directory, more, environment, packages) as pair:
        yield pair
    for gateway in pair:
        log = gateway.log.read_text()
        assert [secret for secret in sent if secret in log] == []
    valkey.close()


async def begun(gateway: Served, tag: str, **options: Any) -> str:
    async with gateway.http() as client:
        answer = await client.post("/v1/tools/gated/runs", json={"tag": tag}, headers={**ADA.bearer, **options})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])


@asynccontextmanager
async def socket_of(gateway: Served, token: str) -> AsyncIterator[SocketClient]:
    protocol = f"bearer.{urlsafe_b64encode(token.encode()).decode().rstrip('=')}"
    url = f"ws://127.0.0.1:{gateway.port}/v1/ws"
    async with websockets.connect(url, subprotocols=[SUBPROTOCOL, websockets.Subprotocol(protocol)], proxy=None) as socket:
        client = SocketClient(socket)
        await client.say("connection_init")
        assert (await client.hear())["type"] == "connection_ack"
        yield client


async def http_doors(client: httpx.AsyncClient, run: str) -> list[httpx.Response]:
    uri = f"/v1/runs/{run}"
    return [
        await client.request(method, path)
        for method, path in (
            ("GET", uri),
            ("GET", f"{uri}/result"),
            ("GET", f"{uri}/events"),
            ("GET", f"{uri}/events?_from=live"),
            ("DELETE", uri),
            ("POST", f"{uri}/cancel"),
        )
    ]


@pytest.mark.parametrize("asked", ["the owner", "the other gateway"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson", "application/json"])
async def test_bob_gets_nothing_of_adas_run_over_http(pair: Pair, tag: str, asked: str, accept: str) -> None:
    run = await begun(pair.b, tag)
    gateway = pair.b if asked == "the owner" else pair.a
    async with gateway.http() as client:
        client.headers.update({**BOB.bearer, "Accept": accept})
        # A result is one document, whatever else is wanted.
        for answer in await http_doors(client, run):
            if accept != "application/json" and answer.url.path.endswith("/result"):
                continue
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/run-not-found"), answer.text
        resumed = await client.get("/v1/tools/gated/stream?tag=x", headers={"Last-Event-ID": f"{run}.0"})
        assert (resumed.status_code, '"expired"' in resumed.text, '"pid"' in resumed.text) == (200, True, False)
        listed = await client.get("/v1/runs?limit=100", headers={"Accept": "application/json"})
        assert run not in listed.text
    async with pair.a.http() as client:
        mine = await client.get(f"/v1/runs/{run}", headers=ADA.bearer)
        assert mine.json()["state"] == "running"
        assert run in (await client.get("/v1/runs", headers=ADA.bearer)).text
        assert (await client.delete(f"/v1/runs/{run}", headers=ADA.bearer)).json()["state"] == "cancelled"


@pytest.mark.parametrize("asked", ["the owner", "the other gateway"])
async def test_bob_joins_and_stops_nothing_of_adas_over_sockets(pair: Pair, tag: str, asked: str) -> None:
    run = await begun(pair.b, tag)
    gateway = pair.b if asked == "the owner" else pair.a
    async with socket_of(gateway, BOB.key) as client:
        for payload in ({"run": run}, {"run": run, "from": "live"}, {"last_event_id": f"{run}.0"}):
            await client.say("attach", id="a", payload=payload)
            frame = await client.hear()
            assert (frame["type"], frame["payload"]["status"]) == ("error", 410 if "last_event_id" in payload else 404)
            await client.say("cancel", id="a")
    url = f"ws://127.0.0.1:{gateway.port}/v1/tools/gated/ws?tag=x"
    async with websockets.connect(url, additional_headers={**BOB.bearer, "Last-Event-ID": f"{run}.0"}, proxy=None) as socket:
        assert json.loads(await socket.recv())["data"]["status"] == "expired"
    async with socket_of(gateway, ADA.key) as client:
        await client.say("attach", id="a", payload={"run": run})
        assert (await client.hear_until("next"))["payload"]["n"] == 1
        await client.say("cancel", id="a")
        assert (await client.hear_until("complete"))["payload"]["status"] == "cancelled"


@pytest.mark.parametrize("person", [None, "gw_wrong"])
async def test_who_has_no_key_gets_nothing_anywhere(pair: Pair, tag: str, person: str | None) -> None:
    run = await begun(pair.b, tag)
    headers = {} if person is None else {"Authorization": f"Bearer {person}"}
    async with pair.a.http() as client:
        client.headers.update(headers)
        for answer in [*await http_doors(client, run), await client.get("/v1/runs"), await client.get("/v1/tools/gated/stream?tag=never")]:
            assert answer.status_code == 401, answer.text
        for path in ("/v1/tools/gated/stream", "/v1/tools/gated/call", "/v1/tools/gated/runs", "/v1/sessions", "/v1/tickets"):
            assert (await client.post(path, json={"tag": "never"})).status_code == 401
    for path in ("/v1/tools/gated/ws?tag=never", "/v1/ws"):
        async with websockets.connect(
            f"ws://127.0.0.1:{pair.a.port}{path}", additional_headers=headers, subprotocols=[SUBPROTOCOL], proxy=None
        ) as socket:
            if path == "/v1/ws" and person is None:
                await socket.send('{"type":"connection_init"}')
            await socket.wait_closed()
            assert socket.close_code == 4401
    metadata = tuple((name.lower(), value) for name, value in headers.items())
    async with bridge(pair.a) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert pair.a.journal("never") == pair.b.journal("never") == []
    async with pair.b.http() as client:
        await client.delete(f"/v1/runs/{run}", headers=ADA.bearer)


async def test_a_session_of_adas_is_not_bobs_on_any_gateway(pair: Pair, tag: str) -> None:
    async with pair.b.http() as client:
        await client.post("/v1/sessions", json={"id": tag, "metadata": {"whose": "ada"}}, headers=ADA.bearer)
    async with pair.a.http() as client:
        assert (await client.get(f"/v1/sessions/{tag}", headers=BOB.bearer)).status_code == 404
        assert (await client.delete(f"/v1/sessions/{tag}", headers=BOB.bearer)).status_code == 404
        assert (await client.get(f"/v1/sessions/{tag}", headers=ADA.bearer)).json()["metadata"] == {"whose": "ada"}
    async with bridge(pair.a) as stub:
        bob = (("authorization", f"Bearer {BOB.key}"),)
        call = stub.ExecuteStreamingTool(tool_request(tag, "gated", tag=tag), metadata=bob)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        ada = (("authorization", f"Bearer {ADA.key}"),)
        call = stub.ExecuteStreamingTool(tool_request(tag, "gated", tag=tag), metadata=ada)
        assert json.loads((await call.read()).data)["n"] == 1
        call.cancel()


async def test_an_idempotency_key_of_adas_is_not_bobs_on_any_gateway(pair: Pair, tag: str) -> None:
    run = await begun(pair.b, tag, **{"Idempotency-Key": tag})
    async with pair.a.http() as client:
        key = {"Idempotency-Key": tag}
        hers = await client.post("/v1/tools/gated/runs", json={"tag": tag}, headers={**ADA.bearer, **key})
        his = await client.post("/v1/tools/gated/runs", json={"tag": tag, "chunks": 1}, headers={**BOB.bearer, **key})
        assert (hers.json()["run"] == run, his.status_code, his.json().get("run") == run) == (True, 202, False)
        await client.delete(f"/v1/runs/{run}", headers=ADA.bearer)


async def test_a_ticket_of_one_gateway_is_good_on_the_other_once(pair: Pair, tag: str) -> None:
    a, b = pair
    async with a.http() as client:
        path = f"/v1/tools/gated/stream?tag={tag}&_on_disconnect=grace:30s"
        given = (await client.post("/v1/tickets", json={"path": path}, headers=ADA.bearer)).json()
        sent.add(given["ticket"])
    async with b.http() as client, client.stream("GET", given["url"]) as stream:
        async for event in events_of(stream):
            if event.event == "message":
                break
    last = event.id
    run = last.partition(".")[0]
    for gateway in pair:
        async with gateway.http() as client:
            assert (await client.get(given["url"])).status_code == 401
    b.open_gate(tag, 2, 3)
    async with a.http() as client, client.stream("GET", given["url"], headers={"Last-Event-ID": last}) as stream:
        story = await read_sse(stream)
    assert (story.start or {})["run"] == run
    assert [chunk["n"] for chunk in story.chunks] == [2, 3]
    assert b.journal(tag).count("start") == 1


async def test_a_token_and_a_session_are_taken_by_both(pair: Pair, provider: Provider) -> None:
    token = provider.token("ada", "tools:gated")
    sent.add(token)
    headers = {"Authorization": f"Bearer {token}"}
    for gateway in pair:
        async with gateway.http() as client:
            assert [entry["name"] for entry in (await client.get("/v1/tools", headers=headers)).json()["tools"]] == ["gated"]
            session = await client.post("/v1/signin", json={"token": token}, headers={"Sec-Fetch-Site": "same-origin"})
            cookie = session.headers["set-cookie"].partition(";")[0]
            sent.add(cookie.partition("=")[2])
    # A cookie of the second gateway, on the first.
    async with pair.a.http() as client:
        answer = await client.get("/v1/tools", headers={"Cookie": cookie, "Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 200
