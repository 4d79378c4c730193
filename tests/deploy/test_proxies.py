"""The proxies of deploy/ pass streams on as they happen, pass on that a client has left, and are kept open by the heartbeat."""

from __future__ import annotations

import itertools
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.authority import Authority, Signed
from tests.deploy.http2client import connected
from tests.deploy.proxies import PROXIES, proxied
from tests.e2e.harness import JOURNAL_ADAPTER, Served, served, until, wait_for

# Where a silent stream is to be cut, or kept.
HEARTBEAT_S = 0.25
IDLE_S = 1
SETTINGS = """
[server]
heartbeat_s = {heartbeat_s}
first_byte_hold_s = 0.1
trusted_proxies = ["127.0.0.1"]

[[pools]]
adapter = "{adapter}"
size = 1
concurrency = 16
"""
_tags = (f"proxied-{number}" for number in itertools.count(1))


@dataclass(frozen=True)
class Fronted:
    """A gateway and a proxy before it."""

    gateway: Served
    port: int
    authority: Authority

    def tls(self) -> ssl.SSLContext:
        return self.authority.client_context()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def signed(authority: Authority) -> Signed:
    return authority.sign("localhost", name="proxy")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway without a heartbeat: it could push out what a proxy holds back, or show it that a client is gone."""
    settings = SETTINGS.format(heartbeat_s=60, adapter=JOURNAL_ADAPTER)
    with served(tmp_path_factory.mktemp("gateway"), settings=settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def beating_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose heartbeat comes some times in the idle time-out."""
    settings = SETTINGS.format(heartbeat_s=HEARTBEAT_S, adapter=JOURNAL_ADAPTER)
    with served(tmp_path_factory.mktemp("beating"), settings=settings) as gateway:
        yield gateway


@pytest.fixture(scope="module", params=PROXIES)
def fronted(
    request: pytest.FixtureRequest, gateway: Served, authority: Authority, signed: Signed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fronted]:
    with proxied(request.param, gateway.port, signed, tmp_path_factory.mktemp("proxy") / request.param) as port:
        yield Fronted(gateway, port, authority)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_a_chunk_arrives_before_the_next_is_there(fronted: Fronted, accept: str) -> None:
    tag = next(_tags)
    async with connected(fronted.port, fronted.tls()) as client:
        stream = client.request(f"/v1/tools/gated/stream?tag={tag}&chunks=3", accept=accept)
        for number in (1, 2, 3):
            # It exists only once the one before it has arrived.
            await stream.until(b'"n":', times=number)
            fronted.gateway.open_gate(tag, number + 1)
        await stream.until_over()
        assert stream.ended
        assert stream.headers["content-type"].startswith(accept)


async def test_a_client_that_leaves_stops_the_tool_and_nothing_else(fronted: Fronted) -> None:
    """One stream is reset, as by a closed tab; another of the same connection goes on."""
    left, other = next(_tags), next(_tags)
    gateway = fronted.gateway
    async with connected(fronted.port, fronted.tls()) as client:
        staying = client.request(f"/v1/tools/gated/stream?tag={other}&chunks=2")
        leaving = client.request(f"/v1/tools/silent/stream?tag={left}")
        await until(lambda: gateway.journal(left) == ["start"], "the tool to begin")
        await staying.until(b'"n":')
        leaving.leave()
        await until(lambda: "cleanup" in gateway.journal(left), "the tool to be stopped")
        assert gateway.journal(left) == ["start", "finally", "cleanup"]
        gateway.open_gate(other, 2)
        await staying.until(b'"status":"ok"')


async def test_a_connection_that_is_lost_stops_its_tools(fronted: Fronted) -> None:
    tag = next(_tags)
    async with connected(fronted.port, fronted.tls()) as client:
        client.request(f"/v1/tools/silent/stream?tag={tag}")
        await until(lambda: fronted.gateway.journal(tag) == ["start"], "the tool to begin")
    await until(lambda: "cleanup" in fronted.gateway.journal(tag), "the tool to be stopped")


@pytest.mark.parametrize("name", PROXIES)
async def test_the_heartbeat_keeps_a_silent_stream_open(
    name: str, beating_gateway: Served, authority: Authority, signed: Signed, tmp_path: Path
) -> None:
    tag = next(_tags)
    began = time.monotonic()
    with proxied(name, beating_gateway.port, signed, tmp_path / name, idle_s=IDLE_S) as port:
        async with connected(port, authority.client_context()) as client:
            stream = client.request(f"/v1/tools/gated/stream?tag={tag}&chunks=2")
            await stream.until(b": hb\n", times=int(2.5 * IDLE_S / HEARTBEAT_S))
            assert time.monotonic() - began > 2 * IDLE_S
            beating_gateway.open_gate(tag, 2)
            await stream.until(b'"status":"ok"')


@pytest.mark.parametrize("name", PROXIES)
async def test_without_the_heartbeat_the_proxy_cuts_it(
    name: str, gateway: Served, authority: Authority, signed: Signed, tmp_path: Path
) -> None:
    """The control of the test above: the idle time-out is real. The cut is a disconnect, which stops the tool."""
    tag = next(_tags)
    with proxied(name, gateway.port, signed, tmp_path / name, idle_s=IDLE_S) as port:
        async with connected(port, authority.client_context()) as client:
            stream = client.request(f"/v1/tools/gated/stream?tag={tag}&chunks=2")
            await stream.until(b'"n":1')
            await stream.until_over()
            assert b"event: end" not in stream.body
            await until(lambda: "cleanup" in gateway.journal(tag), "the tool to be stopped")


async def test_a_websocket_passes(fronted: Fronted) -> None:
    tag = next(_tags)
    url = f"wss://localhost:{fronted.port}/v1/ws"
    async with connect(url, ssl=fronted.tls(), subprotocols=["snakepit.gateway.v1"], proxy=None) as socket:  # type: ignore[list-item]
        await socket.send(json.dumps({"type": "connection_init"}))
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"tool": "gated", "args": {"tag": tag, "chunks": 2}}}))
        async for message in socket:
            frame = json.loads(message)
            if frame["type"] == "next":
                fronted.gateway.open_gate(tag, frame["payload"]["n"] + 1)
            if frame["type"] == "complete":
                assert frame["payload"]["status"] == "ok"
                break
    tag = next(_tags)
    async with connect(f"wss://localhost:{fronted.port}/v1/tools/silent/ws?tag={tag}", ssl=fronted.tls(), proxy=None) as socket:
        assert json.loads(await socket.recv())["event"] in ("start", "status")
        await until(lambda: fronted.gateway.journal(tag) == ["start"], "the tool to begin")
    await until(lambda: "cleanup" in fronted.gateway.journal(tag), "the tool to be stopped")


def test_a_page_of_the_proxys_own_host_may_run_tools(fronted: Fronted) -> None:
    """The proxy passes on the host that was asked for, and its scheme: else this page would be of another origin."""
    import httpx

    tag = next(_tags)
    fronted.gateway.open_gate(tag, 2, 3)
    with httpx.Client(base_url=f"https://localhost:{fronted.port}", verify=fronted.tls(), trust_env=False) as client:
        url = f"/v1/tools/gated/stream?tag={tag}"
        answer = client.get(url, headers={"Origin": f"https://localhost:{fronted.port}"})
        assert answer.status_code == 200, answer.text
        refused = client.get(url, headers={"Origin": "https://elsewhere.example"})
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/origin-not-allowed")
    wait_for(lambda: "cleanup" in fronted.gateway.journal(tag), "the tool to be over")
