"""A client of one HTTP/2 connection that can leave a single stream, as a browser's tab does; httpx can't.

State is h2's; this adds a socket and lets a test wait for what it wants to see of a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import h2.config
import h2.connection
import h2.events

TIMEOUT_S = 10.0


class Stream:
    """One request and what has come of its answer."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self.number = number
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        # It was reset by the other side.
        self.cut = False

    async def until(self, mark: bytes, *, times: int = 1) -> None:
        """Wait for bytes of the body."""
        await self._client.until(lambda: self.body.count(mark) >= times or self.over)
        assert self.body.count(mark) >= times, f"the stream ended without {times} times {mark!r}: {self.headers} {self.body[-300:]!r}"

    async def until_over(self) -> None:
        """Wait for the end, good or bad."""
        await self._client.until(lambda: self.over)

    @property
    def over(self) -> bool:
        return self.ended or self.cut

    def leave(self) -> None:
        """Reset the stream; the connection stays."""
        self._client.reset(self.number)


class Client:
    """A connection. Made by `connected`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self._reader = reader
        self._writer = writer
        self._authority = authority
        self._state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._streams: dict[int, Stream] = {}
        self._news = asyncio.Condition()
        self._lost = False
        self._state.initiate_connection()
        self._flush()

    def request(self, path: str, **headers: str) -> Stream:
        """Send a GET."""
        number = self._state.get_next_available_stream_id()
        fields = {":method": "GET", ":scheme": "https", ":authority": self._authority, ":path": path, **headers}
        self._state.send_headers(number, list(fields.items()), end_stream=True)
        self._flush()
        stream = self._streams[number] = Stream(self, number)
        return stream

    def reset(self, number: int) -> None:
        self._state.reset_stream(number, 8)
        self._flush()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that what comes may make true; also where the connection is lost first."""
        async with asyncio.timeout(TIMEOUT_S), self._news:
            await self._news.wait_for(lambda: condition() or self._lost)

    async def read(self) -> None:
        """Read until the connection is over."""
        while data := await self._reader.read(65536):
            for event in self._state.receive_data(data):
                self._take(event)
            self._flush()
            async with self._news:
                self._news.notify_all()
        self._lost = True
        for stream in self._streams.values():
            stream.cut = stream.cut or not stream.ended
        async with self._news:
            self._news.notify_all()

    def _take(self, event: h2.events.Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = {str(name): str(value) for name, value in event.headers or ()}
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data or b""
            self._state.acknowledge_received_data(event.flow_controlled_length or 0, stream.number)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.cut = True

    def _flush(self) -> None:
        self._writer.write(self._state.data_to_send())


@contextlib.asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext) -> AsyncIterator[Client]:
    """A connection to localhost for the time of a block. The server has to choose HTTP/2."""
    tls.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("localhost", port, ssl=tls)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    client = Client(reader, writer, f"localhost:{port}")
    reading = asyncio.create_task(client.read())
    try:
        yield client
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await reading
        writer.transport.abort()
