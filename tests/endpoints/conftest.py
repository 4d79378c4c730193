"""Readers for the three formats, and raw connections that a test can stall or cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from tests.codec.eventsource import EventSource
from tests.conftest import TIMEOUT_S, Running

SSE = {"Accept": "text/event-stream"}
NDJSON = {"Accept": "application/x-ndjson"}
JSON = {"Accept": "application/json"}


def messages(text: bytes) -> list[tuple[str, Any]]:
    """A whole event stream as (event, data) pairs."""
    source = EventSource()
    source.feed(text)
    return [(message.event, orjson.loads(message.data)) for message in source.messages]


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The response's problem document, which has to be this one."""
    document = response.json()
    assert (response.status_code, document["type"]) == (status, f"/problems/{slug}"), document
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    return dict(document)


@dataclass
class RawStream:
    """A request on a bare TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """What comes until the server closes the connection; a reset is a close."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def cut(self) -> None:
        """Vanish, with a reset."""
        self.writer.transport.abort()


async def raw(
    running: Running, method: str, path: str, body: bytes | None = None, *, receive_buffer_bytes: int | None = None, **headers: str
) -> RawStream:
    """Send a request. A small `receive_buffer_bytes` and no reading make a reader that stalls."""
    sock = socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", running.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**14 if receive_buffer_bytes else 2**20)
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
    return kept(RawStream(reader, writer))


_opened: list[RawStream] = []


def kept(stream: RawStream) -> RawStream:
    """Have a connection cut when the test is over."""
    _opened.append(stream)
    return stream


@pytest.fixture(autouse=True)
async def cut_what_is_left() -> AsyncIterator[None]:
    yield
    while _opened:
        stream = _opened.pop()
        stream.cut()
        with contextlib.suppress(OSError):
            await stream.writer.wait_closed()
