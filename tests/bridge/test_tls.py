"""The gRPC front door over TLS follows a reload, its certificate and the authorities of its clients alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from gateway.app import Gateway
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.settings import PoolSettings, ServerSettings, Settings
from tests.authority import Authority, Signed


@asynccontextmanager
async def listening(**files: Path | None) -> AsyncIterator[Gateway]:
    """A gateway whose gRPC front door has these files, and whose one worker is nowhere."""
    settings = ServerSettings(grpc_address="127.0.0.1:0", drain_timeout_s=0, **files)  # type: ignore[arg-type]
    gateway = Gateway(Settings(server=settings, pools=(PoolSettings(addresses=("unix:/nowhere",)),)))
    async with gateway.run():
        yield gateway


def port(gateway: Gateway) -> int:
    assert gateway.bridge is not None
    return gateway.bridge.port


async def serial(gateway: Gateway, authority: Authority) -> object:
    """Which certificate a client is shown."""
    context = authority.client_context()
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port(gateway), ssl=context, server_hostname="localhost")
    shown: object = writer.get_extra_info("peercert")["serialNumber"]
    writer.transport.abort()
    return shown


async def ping(gateway: Gateway, authority: Authority, shown: Signed) -> None:
    pair = (shown.key.read_bytes(), shown.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"localhost:{port(gateway)}", credentials, options=options) as channel:
        await pb_grpc.BridgeServiceStub(channel).Ping(pb.PingRequest(message="hello"), timeout=10)  # type: ignore[no-untyped-call]


async def test_a_renewed_certificate_is_shown_after_a_reload(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.sign("localhost", name="server")
    async with listening(grpc_tls_cert=server.cert, grpc_tls_key=server.key) as gateway:
        first = await serial(gateway, authority)
        authority.sign("localhost", name="server")
        assert await serial(gateway, authority) == first
        gateway.reload_certificates()
        assert await serial(gateway, authority) != first


async def test_clients_of_an_authority_that_was_replaced_are_not_let_in_any_more(tmp_path: Path) -> None:
    authority, successor = Authority(tmp_path), Authority(tmp_path, "successor")
    server, old, new = authority.sign("localhost", name="server"), authority.sign("ann", name="ann"), successor.sign("ann", name="ann")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    async with listening(grpc_tls_cert=server.cert, grpc_tls_key=server.key, grpc_tls_client_ca=trusted) as gateway:
        await ping(gateway, authority, old)
        with pytest.raises(grpc.aio.AioRpcError):
            await ping(gateway, authority, new)
        trusted.write_bytes(successor.file.read_bytes())
        gateway.reload_certificates()
        await ping(gateway, authority, new)
        with pytest.raises(grpc.aio.AioRpcError):
            await ping(gateway, authority, old)
