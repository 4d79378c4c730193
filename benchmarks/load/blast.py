"""The load generator's ceiling: a server that answers any request with SSE events prepared once.

`python -m benchmarks.load.blast COUNT SIZE` prints its port and ends with its stdin. The events are as the
gateway's, in HTTP chunks of 64 KiB; nothing is computed, so what limits is the reader.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

CHUNK_BYTES = 65536
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(size: int) -> bytes:
    """Return an event with `size` bytes of data."""
    return b"id: r_01K3ZQ8T4V6W8X0Y2Z4A6B8C0D.100000\ndata: " + b"x" * size + b"\n\n"


class Blast(asyncio.Protocol):
    """Answers one request with `count` events."""

    def __init__(self, count: int, size: int) -> None:
        one = event(size)
        self._each = max(1, CHUNK_BYTES // len(one))
        self._one = one
        self._left = count
        self._writable = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(HEAD)
        self._pump()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    def _pump(self) -> None:
        while self._left and self._writable:
            count = min(self._each, self._left)
            self._left -= count
            body = self._one * count
            self._transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            if not self._left:
                self._transport.write(b"0\r\n\r\n")


async def serve(count: int, size: int) -> None:
    """Listen on a free port of the loopback interface until stdin ends."""
    server = await asyncio.get_running_loop().create_server(lambda: Blast(count, size), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(serve(int(sys.argv[1]), int(sys.argv[2])))
