"""A network that a test can break: a TCP proxy between a client and a gateway.

    async with proxied(gateway.port) as proxy:
        ...            connect to proxy.url
        proxy.cut()    every connection is reset; new ones are taken
        proxy.refuse() new connections are refused, too
        proxy.stall()  connections stay, and nothing moves
        proxy.retarget(other.port)  what connects from now on gets to another gateway
        proxy.up, proxy.down    what happens to bytes on their way to the gateway, and back: late, in crumbs, changed
        proxy.up.end()          no more bytes that way; the other way stays open
    proxy.restore()

All that is in effect when the method returns. The proxy's tasks are children of the block, which cuts what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

# SO_LINGER with no time: the close is a reset (RFC 9293 §3.10.4), as from a cable that was pulled and a host that forgot.
_RESET = struct.pack("ii", 1, 0)
_READ_BYTES = 64 * 1024


class Way:
    """One direction of all connections, and what the network does to bytes there; changed at any time, for what is read from then on."""

    def __init__(self) -> None:
        # Every read is passed on so much later.
        self.delay_s = 0.0
        # In pieces of so many bytes, each `delay_s` after the other; 0: as they were read.
        self.piece_bytes = 0
        # Every so manieth byte of a connection is changed; 0: none.
        self.corrupt_every = 0
        self.writers: set[asyncio.StreamWriter] = set()

    def end(self) -> None:
        """Say the end of this direction on all connections; what comes for it is dropped, and the other one goes on."""
        for writer in list(self.writers):
            self.writers.discard(writer)
            if writer.can_write_eof() and not writer.transport.is_closing():
                writer.write_eof()

    def clear(self) -> None:
        """Do nothing to bytes any more."""
        self.delay_s, self.piece_bytes, self.corrupt_every = 0.0, 0, 0

    def pieces(self, data: bytes, offset: int) -> list[bytes]:
        """Return what becomes of a read that began at this offset of its connection."""
        if self.corrupt_every:
            changed = bytearray(data)
            for place in range(-offset % self.corrupt_every, len(data), self.corrupt_every):
                changed[place] ^= 0xFF
            data = bytes(changed)
        size = self.piece_bytes or len(data)
        return [data[start : start + size] for start in range(0, len(data), size)]


class Proxy:
    """See the module. `accepted` counts the connections so far; a connection holds at most 64 KiB a direction."""

    def __init__(self, target: int, tasks: asyncio.TaskGroup) -> None:
        self.accepted = 0
        self.up = Way()
        self.down = Way()
        self._target = target
        self._tasks = tasks
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        # Bound and never listening: keeps the port ours while connections to it are refused.
        self._place = _bound(0)
        self.port = int(self._place.getsockname()[1])
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset all connections, on both sides."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def stall(self) -> None:
        """Let nothing through any more, in either direction, on old connections and new ones."""
        self._flowing.clear()

    def retarget(self, target: int) -> None:
        """Lead new connections to another port; those that are open stay."""
        self._target = target

    async def restore(self) -> None:
        """Take connections, and let everything through as it is."""
        self.up.clear()
        self.down.clear()
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=_bound(self.port))

    def close(self) -> None:
        """Cut and refuse for good; what was stalled ends."""
        self.refuse()
        self.cut()
        self._flowing.set()
        self._place.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._tasks.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream}
        try:
            await asyncio.gather(self._pump(reader, upstream, self.up), self._pump(upstream_reader, writer, self.down))
        finally:
            self._writers -= {writer, upstream}
            for side in (writer, upstream):
                side.close()
                with contextlib.suppress(OSError):
                    await side.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        way.writers.add(writer)
        offset = 0
        try:
            while data := await reader.read(_READ_BYTES):
                for piece in way.pieces(data, offset):
                    if way.delay_s:
                        await asyncio.sleep(way.delay_s)
                    await self._flowing.wait()
                    if writer in way.writers:
                        writer.write(piece)
                        await writer.drain()
                offset += len(data)
            if writer in way.writers and writer.can_write_eof():
                writer.write_eof()
        except OSError:
            pass
        finally:
            way.writers.discard(writer)


@contextlib.asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """A proxy to this port of the local host, for the time of a block."""
    async with asyncio.TaskGroup() as tasks:
        proxy = Proxy(target, tasks)
        await proxy.restore()
        try:
            yield proxy
        finally:
            proxy.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    return sock
