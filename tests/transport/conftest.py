"""What the transport tests share: a sink that records, channels that are closed, gRPC servers, and a worker made of bare frames."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import hpack
import pytest
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    SettingsFrame,
)

from gateway.transport import TransportKind, open_transport
from gateway.transport.base import MESSAGE_LIMIT_BYTES, METADATA_LIMIT_BYTES, CallStatus, Channel
from gateway.transport.tls import TlsOptions

WAIT_S = 10
METHOD = "/test.Service/Stream"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
F = TypeVar("F", bound=Frame)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """Wait for something that must happen, but not for ever."""
    async with asyncio.timeout(WAIT_S):
        return await awaitable


class Recorder:
    """A sink that keeps what it is told and can be waited for."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.statuses: list[CallStatus] = []
        self.on_batch: Callable[[list[bytes]], None] | None = None
        self.sendable = 0
        self.when_sendable: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    def on_messages(self, messages: list[bytes]) -> None:
        assert messages
        assert not self.statuses, "a message after the end"
        self.batches.append(messages)
        self._changed.set()
        if self.on_batch is not None:
            self.on_batch(messages)

    def on_close(self, status: CallStatus) -> None:
        self.statuses.append(status)
        self._changed.set()

    def on_sendable(self) -> None:
        assert not self.statuses, "on_sendable after the end"
        self.sendable += 1
        self._changed.set()
        if self.when_sendable is not None:
            self.when_sendable()

    @property
    def messages(self) -> list[bytes]:
        return [message for batch in self.batches for message in batch]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.messages))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_messages(self, count: int) -> list[bytes]:
        await self.until(lambda: len(self.messages) >= count)
        return self.messages

    async def until_closed(self) -> CallStatus:
        await self.until(lambda: bool(self.statuses))
        await asyncio.sleep(0)
        assert len(self.statuses) == 1, "on_close was called more than once"
        return self.statuses[0]


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(params=["lane", "grpcio"])
def kind(request: pytest.FixtureRequest) -> TransportKind:
    return request.param


Connect = Callable[..., Any]


@pytest.fixture
async def connect(kind: TransportKind) -> AsyncIterator[Connect]:
    """`connect(address, tls=None)` -> a channel of this kind, closed at the end."""
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    channels: list[Channel] = []

    def connect(address: str, tls: TlsOptions | None = None) -> Channel:
        channel = open_transport(kind, tasks).connect(address, tls=tls)
        channels.append(channel)
        return channel

    yield connect
    for channel in channels:
        await soon(channel.aclose())
    await soon(tasks.__aexit__(None, None, None))


# -- real gRPC servers ---------------------------------------------------------------------------------------


@dataclass
class Service:
    """Behaviours by method name; each is told what it must do by its request."""

    active: int = 0
    sent: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        number, size = struct.unpack(">II", request)
        for i in range(number):
            yield i.to_bytes(4, "big").ljust(size, b".")

    async def echo(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.seen.append({"metadata": dict(context.invocation_metadata()), "remaining_s": context.time_remaining()})
        yield request

    async def nothing(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        return
        yield b""

    async def fail(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"before"
        context.set_trailing_metadata(
            (("hint", "try again"), ("grpc-status-details-bin", b"\x00\xffdetails"), ("blob-bin", b"\x01\x02\xfe"))
        )
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())

    async def unavailable(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        yield b""

    async def endless(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Send `request` again and again."""
        self._note(active=1)
        try:
            while True:
                yield request
                self._note(sent=1)
        finally:
            self._note(active=-1)

    async def silent(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Send `request` once, then wait to be cancelled."""
        self._note(active=1)
        try:
            yield request
            await asyncio.Event().wait()
        finally:
            self._note(active=-1)

    # -- with many request messages: `requests` is their iterator, at its end the half-close

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Send each message back."""
        self._note(active=1)
        self.seen.append({"metadata": dict(context.invocation_metadata()), "remaining_s": context.time_remaining()})
        try:
            async for request in requests:
                yield request
        finally:
            self._note(active=-1)

    async def greet(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Speak first."""
        yield b"hello"
        async for request in requests:
            yield b"hello " + request

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Send them all back, once there are no more."""
        for request in [request async for request in requests]:
            yield request

    async def total(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Answer, once, how many there were and how many bytes."""
        sizes = [len(request) async for request in requests]
        return struct.pack(">II", len(sizes), sum(sizes))

    async def slow(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Read nothing until released; then as `total`."""
        self._note(active=1)
        try:
            await self.released.wait()
            return await self.total(requests, context)
        finally:
            self._note(active=-1)

    async def enough(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Send the first one back and end well, whatever else is said."""
        async for request in requests:
            yield request
            return

    async def refuse(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """End badly at the first one."""
        async for request in requests:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, request[:20].decode())
            yield b""

    def _note(self, active: int = 0, sent: int = 0) -> None:
        self.active += active
        self.sent += sent
        self.changed.set()

    def handler(self) -> grpc.GenericRpcHandler:
        names = ("count", "echo", "nothing", "fail", "unavailable", "endless", "silent")
        methods = {name: grpc.unary_stream_rpc_method_handler(getattr(self, name)) for name in names}
        both = ("chat", "greet", "collect", "enough", "refuse")
        methods |= {name: grpc.stream_stream_rpc_method_handler(getattr(self, name)) for name in both}
        methods |= {name: grpc.stream_unary_rpc_method_handler(getattr(self, name)) for name in ("total", "slow")}
        return grpc.method_handlers_generic_handler("test.Service", methods)


@dataclass
class GrpcServer:
    """A running grpc.aio server."""

    service: Service
    server: grpc.aio.Server
    address: str


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[GrpcServer]]]:
    """`await serve(address="127.0.0.1:0", credentials=None)` -> a server, stopped at the end."""
    servers: list[grpc.aio.Server] = []

    async def serve(address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> GrpcServer:
        service = Service()
        options = [
            ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
            ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
            ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((service.handler(),))
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        await server.start()
        servers.append(server)
        return GrpcServer(service, server, address.replace(":0", f":{port}") if not address.startswith("unix:") else address)

    yield serve
    for server in servers:
        await server.stop(None)


# -- a worker made of frames ---------------------------------------------------------------------------------


def grpc_message(data: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


class FakeConnection:
    """The server's side of one connection, frame by frame, on hyperframe and hpack."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.frames: list[Frame] = []
        self.closed = asyncio.Event()
        self._reader = reader
        self._changed = asyncio.Event()

    async def read(self) -> None:
        """Collect the client's frames until it hangs up."""
        try:
            assert await self._reader.readexactly(len(PREFACE)) == PREFACE
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(9)))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                self.frames.append(frame)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed.set()
            self._changed.set()

    def of(self, kind: type[F]) -> list[F]:
        return [frame for frame in self.frames if type(frame) is kind]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def first(self, kind: type[F], matching: Callable[[F], bool] = lambda frame: True) -> F:
        await self.until(lambda: any(map(matching, self.of(kind))))
        return next(filter(matching, self.of(kind)))

    async def nth(self, kind: type[F], number: int) -> F:
        """Return the `number`-th frame of this kind, from 1."""
        await self.until(lambda: len(self.of(kind)) >= number)
        return self.of(kind)[number - 1]

    def send(self, *frames: Frame) -> None:
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    def greet(self, settings: dict[int, int] | None = None) -> None:
        self.send(SettingsFrame(0, settings=settings or {}), SettingsFrame(0, flags=["ACK"]))

    async def requests(self, number: int) -> None:
        """Wait until `number` whole requests have come."""
        await self.until(lambda: sum("END_STREAM" in frame.flags for frame in self.of(DataFrame)) >= number)

    def headers(self, stream_id: int, fields: Iterable[tuple[str, str]] | None = None, *, end_stream: bool = False) -> HeadersFrame:
        fields = [(":status", "200"), ("content-type", "application/grpc")] if fields is None else fields
        frame = HeadersFrame(stream_id, self.encoder.encode(list(fields)), flags=["END_HEADERS"])
        if end_stream:
            frame.flags.add("END_STREAM")
        return frame

    def trailers(self, stream_id: int, *fields: tuple[str, str]) -> HeadersFrame:
        return self.headers(stream_id, fields or [("grpc-status", "0")], end_stream=True)

    def answer(self, stream_id: int, *messages: bytes) -> None:
        """Send a whole good answer."""
        data = [DataFrame(stream_id, grpc_message(message)) for message in messages]
        self.send(self.headers(stream_id), *data, self.trailers(stream_id))


class FakeWorker:
    """Listens, greets, and hands each connection to the test."""

    def __init__(self, settings: dict[int, int], greet: bool) -> None:
        self.address = ""
        self.connections: list[FakeConnection] = []
        self.settings = settings
        self._greet = greet
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = FakeConnection(reader, writer)
        if self._greet:
            connection.greet(self.settings)
        self.connections.append(connection)
        self._changed.set()
        try:
            await connection.read()
        finally:
            writer.close()

    async def connection(self, number: int = 1) -> FakeConnection:
        """Return the `number`-th connection, from 1."""
        async with asyncio.timeout(WAIT_S):
            while len(self.connections) < number:
                self._changed.clear()
                await self._changed.wait()
        return self.connections[number - 1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            connection.writer.transport.abort()
        for connection in self.connections:
            await soon(connection.closed.wait())
        await self._server.wait_closed()


@pytest.fixture
async def fake() -> AsyncIterator[Callable[..., Awaitable[FakeWorker]]]:
    """`await fake(settings={}, greet=True)` -> a FakeWorker, stopped at the end."""
    workers: list[FakeWorker] = []

    async def fake(settings: dict[int, int] | None = None, *, greet: bool = True, tls: ssl.SSLContext | None = None) -> FakeWorker:
        worker = FakeWorker(settings or {}, greet)
        await worker.start(tls)
        workers.append(worker)
        return worker

    yield fake
    for worker in workers:
        await worker.stop()


@pytest.fixture
def fake_worker() -> type[FakeWorker]:
    """The class, for a test that runs a loop of its own."""
    return FakeWorker


# -- certificates --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """Files of one authority, its server and its client certificate."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    def server_credentials(self, *, ask_client: bool) -> grpc.ServerCredentials:
        pair = (self.server_key.read_bytes(), self.server.read_bytes())
        return grpc.ssl_server_credentials([pair], self.ca.read_bytes() if ask_client else None, require_client_auth=ask_client)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    trustme = pytest.importorskip("trustme")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, identity in (("server", "localhost"), ("client", "gateway@example.org")):
        issued = authority.issue_cert(identity, "127.0.0.1") if name == "server" else authority.issue_cert(identity)
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    return Certificates(folder / "ca.pem", *(folder / name for name in ("server.pem", "server.key", "client.pem", "client.key")))
