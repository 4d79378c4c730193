"""One reader of one stream, over whatever protocol: what it counts, when it is done, how it is opened and left.

The base of EventReader (http.py) and FrameReader (websocket.py), and `opened`, which connects any number of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

from benchmarks import stamp

# Connections that are made at the same time.
AT_ONCE = 100


class StreamFailed(Exception):
    """A target answered something else than a stream, or cut it, or delivered another number of events than it had to."""


class StreamReader(asyncio.Protocol, ABC):
    """Counts events. `stamps` None: no latencies are taken."""

    transport: asyncio.Transport

    def __init__(self, stamps: stamp.Reader | None) -> None:
        loop = asyncio.get_running_loop()
        # Set when the first event came, and when the stream has ended; both raise StreamFailed.
        self.first: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        # From making to reading, one for each event, in the order of arrival.
        self.latencies_ns: list[int] = []
        # The end of the body, for messages and tests.
        self.tail = b""
        self._stamps = stamps
        self._ended = False

    @property
    @abstractmethod
    def events(self) -> int:
        """Events so far."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(StreamFailed(f"the connection was closed after {self.events} events"))

    def stop_reading(self) -> None:
        """Read nothing more from the socket."""
        self.transport.pause_reading()

    def leave(self) -> None:
        """Close the connection, in the middle of the stream where it hasn't ended."""
        self._ended = True
        self.transport.abort()

    def note_latencies(self, data: bytes) -> None:
        """Take the timestamps in `data`, which has just been read."""
        if self._stamps is not None:
            now = time.monotonic_ns()
            self.latencies_ns.extend([now - moment for moment in self._stamps(data)])

    def note_first(self) -> None:
        """Say that an event came."""
        if not self.first.done():
            self.first.set_result(None)

    def end(self, failure: StreamFailed | None) -> None:
        """End reading, once; a failure is raised to whoever waits."""
        if self._ended:
            return
        self._ended = True
        for future in (self.first, self.done):
            if future.done():
                continue
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)
                # Taken here: a case need not wait for both.
                future.exception()
        self.transport.close()


@contextlib.asynccontextmanager
async def opened(readers: Sequence[StreamReader], port: int, *, receive_buffer_bytes: int | None = None) -> AsyncIterator[None]:
    """Connect every reader for the time of the block; those left open are then closed."""
    loop = asyncio.get_running_loop()
    connected: list[StreamReader] = []

    async def connect(reader: StreamReader) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.create_connection(lambda: reader, sock=sock)
        connected.append(reader)

    try:
        for at in range(0, len(readers), AT_ONCE):
            await asyncio.gather(*(connect(reader) for reader in readers[at : at + AT_ONCE]))
        yield
    finally:
        for reader in connected:
            reader.leave()
