"""A gateway behind TLS as its clients see it: a process, with both front doors encrypted and clients that show a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.rpc.snakepit_bridge_pb2 import PingRequest
from tests.authority import Authority, Signed
from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import JOURNAL_ADAPTER, ROOT, Served, read_sse, served, until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Signed:
    return authority.sign("ann@example.org", name="client")


@pytest.fixture(scope="module", params=BUILDS)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority, client: Signed
) -> Iterator[Served]:
    server = authority.sign("localhost", "127.0.0.1", name="server")
    settings = f"""
[server]
write_timeout_s = 0.5
tls_cert = "{server.cert}"
tls_key = "{server.key}"
tls_client_ca = "{authority.file}"

[[pools]]
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
"""
    directory = tmp_path_factory.mktemp("tls-gateway")
    with served(directory, settings=settings, tls=authority.client_context(client), packages=packages_of(request.param)) as gateway:
        yield gateway


async def test_a_stream_comes_whole(gateway: Served, tag: str) -> None:
    async with gateway.http() as http, http.stream("GET", f"/v1/tools/numbered/stream?tag={tag}&count=20000") as response:
        story = await read_sse(response)
    assert story.numbers == list(range(1, 20_001))
    assert story.end is not None
    assert story.end["status"] == "ok"


async def test_a_client_that_leaves_stops_its_tool(gateway: Served, tag: str) -> None:
    async with gateway.http() as http, http.stream("GET", f"/v1/tools/silent/stream?tag={tag}"):
        await until(lambda: "start" in gateway.journal(tag), "the tool's start")
    await until(lambda: gateway.journal(tag)[-1] == "cleanup", "the tool's end")


async def test_a_reader_that_stalls_is_cut_and_its_tool_stopped(gateway: Served, tag: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=gateway.tls, limit=2**14)
    writer.write(f"GET /v1/tools/heavy/stream?tag={tag}&chunks=100000&size=20000 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await until(lambda: "cleanup" in gateway.journal(tag), "the tool's end")
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def test_who_shows_no_certificate_is_not_let_in(gateway: Served, authority: Authority) -> None:
    with httpx.Client(verify=authority.client_context(), trust_env=False) as http, pytest.raises(httpx.TransportError):
        http.get(f"{gateway.url}/livez")


@pytest.mark.parametrize("shown", [True, False])
async def test_grpc_asks_for_the_same(gateway: Served, authority: Authority, client: Signed, shown: bool) -> None:
    pair = {"private_key": client.key.read_bytes(), "certificate_chain": client.cert.read_bytes()} if shown else {}
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), **pair)
    async with grpc.aio.secure_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
        ping = pb_grpc.BridgeServiceStub(channel).Ping(PingRequest(message="hello"), timeout=10)  # type: ignore[no-untyped-call]
        if shown:
            await ping
        else:
            with pytest.raises(grpc.aio.AioRpcError):
                await ping


def test_the_log_says_https(gateway: Served) -> None:
    lines = {line["event"]: line for line in gateway.log_lines()}
    assert lines["HTTP listens"]["url"].startswith("https://")
    assert lines["gRPC listens"]["tls"] is True


def test_a_wrong_file_ends_the_start_with_its_setting(tmp_path: Path) -> None:
    settings = tmp_path / "gateway.toml"
    settings.write_text(f'[server]\ntls_cert = "{tmp_path}/none.pem"\ntls_key = "{tmp_path}/none.key"\n')
    command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--config", str(settings)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "server.tls_cert" in json.loads(ended.stderr.splitlines()[-1])["reason"]
