"""HTTP requests and WebSocket frames as bytes, for clients that no library would be."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator

from tests.e2e.harness import PATIENCE_S, Served

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def get(path: str, *headers: str) -> bytes:
    """Return a GET request."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


def upgrade(path: str, subprotocol: bool = True) -> bytes:
    """Return the request for a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    more = ("Sec-WebSocket-Protocol: snakepit.gateway.v1",) if subprotocol else ()
    return get(path, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *more)


def client_frame(payload: bytes, opcode: int = 1, *, fin: bool = True, reserved: int = 0, masked: bool = True) -> bytes:
    """Return a frame of a client (RFC 6455 §5.2); its mask is four zeros."""
    mask = b"\0\0\0\0" if masked else b""
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        length = bytes((bit | size,))
    else:
        length = struct.pack(">BH", bit | 126, size) if size < 65536 else struct.pack(">BQ", bit | 127, size)
    return bytes((fin << 7 | reserved << 4 | opcode,)) + length + mask + payload


async def close_code(reader: asyncio.StreamReader) -> int:
    """Read a server's frames up to its close frame, and return that one's code; 1006 for a connection that just ends."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                first, second = await reader.readexactly(2)
                size = second
                if size > 125:
                    size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
                payload = await reader.readexactly(size)
                if first & 15 == 8:
                    return int.from_bytes(payload[:2], "big")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 1006


@contextlib.asynccontextmanager
async def raw_socket(
    gateway: Served, path: str = "/v1/ws", *, init: bool = True, receive_buffer_bytes: int | None = None
) -> AsyncIterator[Connection]:
    """A WebSocket whose handshake is over; with `init`, `connection_init` as well. It is cut at the end."""
    sock = socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096 if receive_buffer_bytes else 2**16)
    try:
        writer.write(upgrade(path))
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        if init:
            writer.write(client_frame(b'{"type":"connection_init"}'))
            head = await reader.readexactly(2)
            assert b"connection_ack" in await reader.readexactly(head[1])
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
