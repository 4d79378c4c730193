"""HTTP over TLS: the same server, who comes in, and the direct way on a connection that is encrypted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from gateway.codec.websocket import SUBPROTOCOL
from gateway.direct import DirectExchange
from gateway.endpoints.clients import client_certificate
from tests.authority import Authority, Signed
from tests.conftest import TIMEOUT_S, FakeCall, Running, Serve, until, within
from tests.endpoints.conftest import RawStream, kept

COUNT = "/v1/tools/count/stream"
GET = b"GET /v1/tools/count/stream HTTP/1.1\r\nHost: test\r\n\r\n"
END = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Signed:
    return authority.sign("localhost", "127.0.0.1", name="server")


@pytest.fixture
async def running(serve: Serve, server: Signed) -> AsyncIterator[Running]:
    async with serve(tls_cert=server.cert, tls_key=server.key, first_byte_hold_s=0.3, write_timeout_s=0.3, head_timeout_s=0.3) as running:
        yield running


def client(running: Running, context: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"https://127.0.0.1:{running.port}", verify=context, timeout=TIMEOUT_S, trust_env=False)


async def opened(running: Running, authority: Authority, data: bytes) -> RawStream:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=authority.client_context(), limit=2**14)
    writer.write(data)
    return kept(RawStream(reader, writer))


async def test_a_stream_goes_its_direct_way(running: Running, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    original = DirectExchange.start
    monkeypatch.setattr(DirectExchange, "start", lambda self: (begun.append(self._tool), original(self)))
    stream = await opened(running, authority, GET)
    call = await running.pool.next_call()
    for number in (1, 2):
        call.send(number)
        assert b"data: %d\n\n" % number in await stream.until(b"data: %d\n\n" % number)
    call.end()
    await stream.until(END)
    assert begun == ["count"]


@pytest.mark.parametrize("how", ["closes", "vanishes"])
async def test_a_client_that_leaves_cancels_its_run(running: Running, authority: Authority, how: str) -> None:
    stream = await opened(running, authority, GET)
    call = await running.pool.next_call()
    call.send(1)
    await stream.until(b"data: 1\n\n")
    if how == "closes":
        stream.writer.close()
    else:
        stream.cut()
    await within(call.cancelled.wait())


async def test_a_reader_that_stalls_is_cut(running: Running, authority: Authority) -> None:
    stream = await opened(running, authority, GET)
    call = await running.pool.next_call()
    while not call.cancelled.is_set():
        if not call.paused:
            call.send("x" * 100_000)
        await asyncio.sleep(0.005)
    await until(lambda: running.gateway.hub.open_runs == 0)
    with contextlib.suppress(ssl.SSLError):
        assert END not in await stream.rest()


async def test_a_refused_request_is_read_before_the_end(running: Running, authority: Authority) -> None:
    stream = await opened(running, authority, b"GET /livez")
    assert b"/problems/request-timeout" in await stream.rest()


async def test_calls_and_sockets_work_as_well(running: Running, authority: Authority) -> None:
    context = authority.client_context()

    def script(call: FakeCall) -> None:
        call.send(3)
        call.end()

    running.pool.script = script
    async with client(running, context) as http:
        answer = await http.post("/v1/tools/add/call", json={"a": 1, "b": 2}, headers={"Origin": f"https://127.0.0.1:{running.port}"})
        assert answer.json()["result"] == 3
        plain = await http.post("/v1/tools/add/call", json={"a": 1, "b": 2}, headers={"Origin": f"http://127.0.0.1:{running.port}"})
        assert plain.status_code == 403
    page = {"Origin": f"https://127.0.0.1:{running.port}"}
    url = f"wss://127.0.0.1:{running.port}/v1/ws"
    async with connect(url, ssl=context, subprotocols=[SUBPROTOCOL], additional_headers=page, proxy=None) as socket:
        assert socket.subprotocol == SUBPROTOCOL


async def test_http_1_1_is_agreed_on(running: Running, authority: Authority) -> None:
    context = authority.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.close()


async def test_a_handshake_that_does_not_come_is_cut(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    assert await within(RawStream(reader, writer).rest()) == b""
    writer.close()


async def test_plain_http_on_a_tls_port_reaches_nothing(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(GET)
    assert b"HTTP/1.1" not in await within(RawStream(reader, writer).rest())
    assert running.pool.requests == []
    writer.close()


async def test_clients_need_a_certificate_of_the_authority_that_is_named(
    serve: Serve, authority: Authority, server: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    ann = authority.sign("ann@example.org", name="ann", common_name="ann")
    stranger = Authority(tmp_path, "other").sign("ann@example.org", name="ann", common_name="ann")
    async with serve(tls_cert=server.cert, tls_key=server.key, tls_client_ca=authority.file) as running:
        original = running.app.exposure.check
        monkeypatch.setattr(running.app.exposure, "check", lambda scope: (seen.append(client_certificate(scope)), original(scope))[1])
        async with client(running, authority.client_context(ann)) as http:
            assert (await http.get("/livez")).status_code == 200
            await http.get(COUNT.replace("count", "nothing"))
        url = f"wss://127.0.0.1:{running.port}/v1/ws"
        async with connect(url, ssl=authority.client_context(ann), subprotocols=[SUBPROTOCOL], proxy=None):
            pass
        for shown in (None, stranger):
            async with client(running, authority.client_context(shown)) as http:
                with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError, ssl.SSLError)):
                    await http.get("/livez")
    assert len(seen) >= 3
    assert all(name is not None and name.startswith("CN=ann,") for name in seen), seen


async def test_a_reload_is_seen_by_new_connections(serve: Serve, authority: Authority) -> None:
    renewed = authority.sign("localhost", "127.0.0.1", name="renewed")

    async def serial(running: Running) -> object:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=authority.client_context())
        writer.close()
        return writer.get_extra_info("peercert")["serialNumber"]

    async with serve(tls_cert=renewed.cert, tls_key=renewed.key) as running:
        first = await serial(running)
        authority.sign("localhost", "127.0.0.1", name="renewed")
        running.gateway.reload_certificates()
        assert await serial(running) != first


async def test_clients_of_an_authority_that_was_replaced_are_not_let_in_any_more(
    serve: Serve, authority: Authority, server: Signed, tmp_path: Path
) -> None:
    successor = Authority(tmp_path, "successor")
    old, new = authority.sign("ann", name="old"), successor.sign("ann", name="new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())

    async def is_let_in(shown: Signed) -> bool:
        async with client(running, authority.client_context(shown)) as http:
            with contextlib.suppress(httpx.TransportError, ssl.SSLError):
                return (await http.get("/livez")).status_code == 200
        return False

    async with serve(tls_cert=server.cert, tls_key=server.key, tls_client_ca=trusted) as running:
        assert (await is_let_in(old), await is_let_in(new)) == (True, False)
        trusted.write_bytes(successor.file.read_bytes())
        running.gateway.reload_certificates()
        assert (await is_let_in(old), await is_let_in(new)) == (False, True)
