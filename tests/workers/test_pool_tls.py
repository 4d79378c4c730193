"""Workers that somebody else runs, spoken to over TLS with certificates on both sides, by both transports."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from gateway.app import Gateway
from gateway.configured import worker_tls
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.settings import PoolSettings, ServerSettings, Settings, SettingsError, WorkerTlsSettings, load
from tests.authority import Authority, Signed
from tests.workers.conftest import until


class Bridge(pb_grpc.BridgeServiceServicer):
    """A worker of Snakepit's that is there."""

    async def Ping(self, request: pb.PingRequest, context: Any) -> pb.PingResponse:
        return pb.PingResponse(message="pong")


Serve = Callable[..., Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`port = await serve(signed, clients)`: a worker with this certificate, whose clients need one of that authority."""
    servers: list[grpc.aio.Server] = []

    async def serve(signed: Signed, clients: Authority | None) -> int:
        server = grpc.aio.server()
        servers.append(server)
        pb_grpc.add_BridgeServiceServicer_to_server(Bridge(), server)  # type: ignore[no-untyped-call]
        authorities = None if clients is None else clients.file.read_bytes()
        pair = (signed.key.read_bytes(), signed.cert.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], authorities, require_client_auth=clients is not None)
        port: int = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        return port

    yield serve
    for server in servers:
        await server.stop(0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def gateway_for(port: int, transport: str, tls: WorkerTlsSettings | bool, host: str = "127.0.0.1") -> Gateway:
    pool = PoolSettings(name="remote", addresses=(f"{host}:{port}",), tools=("predict",), tls=tls)
    return Gateway(Settings(server=ServerSettings(grpc_address="", drain_timeout_s=0), pools=(pool,), transport=transport))  # type: ignore[arg-type]


@pytest.mark.parametrize("transport", ["lane", "grpcio"])
async def test_workers_are_reached_with_certificates_on_both_sides(authority: Authority, serve: Serve, transport: str) -> None:
    port = await serve(authority.sign("worker.internal", name="worker"), authority)
    client = authority.sign("gateway", name="client")
    gateway = gateway_for(
        port, transport, WorkerTlsSettings(ca=authority.file, cert=client.cert, key=client.key, server_name="worker.internal")
    )
    async with gateway.run():
        await until(lambda: gateway.pools["remote"].readiness() == [], 10)
        assert gateway.pools["remote"].snapshot()["workers"][0]["state"] == "ready"
        assert "predict" in gateway.pools["remote"].tools


# What the worker's reason says of it. Of what the worker itself doesn't like it says nothing, and hangs up.
FAULTS = {
    "a worker of another authority": ("unknown", "CERTIFICATE_VERIFY_FAILED.*unable to get local issuer"),
    "an expired certificate": ("expired", "CERTIFICATE_VERIFY_FAILED.*certificate has expired"),
    "another name": ("name", "certificate is not valid for|Hostname Verification Check failed"),
    "no certificate of ours": ("client", "the worker closed it|Socket closed"),
    "no TLS at all": ("plain", "the worker closed it|Socket closed"),
}


@pytest.mark.parametrize(("fault", "words"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("transport", ["lane", "grpcio"])
async def test_a_worker_that_cannot_be_trusted_is_down_and_says_why(
    authority: Authority, serve: Serve, tmp_path: Path, transport: str, fault: str, words: str
) -> None:
    signer = Authority(tmp_path, "other") if fault == "unknown" else authority
    worker = signer.sign("other" if fault == "name" else "127.0.0.1", name="worker", expired=fault == "expired")
    client = authority.sign("gateway", name="client")
    shown = {} if fault == "client" else {"cert": client.cert, "key": client.key}
    port = await serve(worker, authority)
    gateway = gateway_for(port, transport, False if fault == "plain" else WorkerTlsSettings(ca=authority.file, **shown))
    with capture_logs() as logs:
        async with gateway.run():
            pool = gateway.pools["remote"]
            # Not at first, when nothing was tried.
            await until(lambda: "remote-1 at 127.0.0.1" in pool.readiness()[0], 20)
            assert pool.snapshot()["workers"][0]["state"] != "ready"
    down = next(line for line in logs if line["event"] == "worker down")
    assert re.search(words, down["reason"]), down


async def test_files_that_go_away_later_do_not_end_the_gateway(authority: Authority, serve: Serve) -> None:
    """They are read for each connection, so that renewed ones are used; one that is missing then is a reason to try again."""
    port = await serve(authority.sign("127.0.0.1", name="worker"), None)
    gateway = gateway_for(port, "lane", WorkerTlsSettings(ca=authority.file))
    content = authority.file.read_bytes()
    authority.file.unlink()
    async with gateway.run():
        pool = gateway.pools["remote"]
        await until(lambda: str(authority.file) in pool.readiness()[0], 10)
        authority.file.write_bytes(content)
        await until(lambda: pool.readiness() == [], 10)


def test_files_are_looked_at_before_the_start(authority: Authority, tmp_path: Path) -> None:
    client, absent = authority.sign("gateway", name="client"), tmp_path / "absent.pem"
    for tls in (WorkerTlsSettings(ca=absent), WorkerTlsSettings(ca=client.key), WorkerTlsSettings(cert=client.cert, key=authority.file)):
        with pytest.raises(SettingsError, match=r"pool 'remote': tls: .*\.(pem|key)"):
            gateway_for(1, "lane", tls)


def test_settings_say_whether_and_how(authority: Authority) -> None:
    assert worker_tls(PoolSettings(addresses=("a:1",))) is None
    system = worker_tls(PoolSettings(addresses=("a:1",), tls=True))
    assert system is not None
    assert system.ca_file is None
    named = worker_tls(PoolSettings(addresses=("a:1",), tls=WorkerTlsSettings(ca=authority.file, server_name="worker")))
    assert named is not None
    assert (named.ca_file, named.server_name) == (authority.file, "worker")


@pytest.mark.parametrize(
    ("pool", "line"),
    [
        ({"adapter": "a:B", "tls": True}, "tls is for addresses"),
        ({"addresses": ["a:1"], "tls": {"cert": "a"}}, r"tls\.cert and tls\.key belong together"),
        ({"addresses": ["a:1"], "tls": {"certificate": "a"}}, "certificate"),
    ],
)
def test_settings_that_make_no_sense_are_named(pool: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        load(overrides={"pools": [pool]})
