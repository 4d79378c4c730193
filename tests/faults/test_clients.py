"""Clients that vanish, dawdle, stall, and come in numbers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tests.e2e.harness import Served, descriptors, rss_bytes, until
from tests.faults.containment import contained
from tests.faults.leaks import MEBIBYTE
from tests.faults.rawsocket import client_frame, get, raw_socket, upgrade

POOL = "_pool=broken"
# Closing sends a reset: the client's host has forgotten it.
RESET = struct.pack("ii", 1, 0)
VANISHING = 2_000
AT_ONCE = 250
LORISES = 200
STALLED = 100


def connected(gateway: Served, receive_buffer_bytes: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.connect(("127.0.0.1", gateway.port))
    sock.setblocking(False)
    return sock


async def test_2000_connections_that_open_and_vanish_leave_nothing(gateway: Served, tag: str) -> None:
    """At every stage: before a byte, in the request, in its body, with a stream under way, with a socket half open."""
    body = b"POST /v1/tools/numbered/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    stages = (
        b"",
        b"GET /v1/tools/nu",
        body,
        get(f"/v1/tools/endless_async/stream?tag={tag}&{POOL}"),
        get(f"/v1/tools/silent/stream?tag={tag}&{POOL}", "Accept: application/json"),
        upgrade("/v1/ws"),
        upgrade(f"/v1/tools/endless_async/ws?tag={tag}&{POOL}", subprotocol=False),
        get("/v1/tools"),
    )
    # The allocator keeps the peak of 250 at once; whether memory grows for ever is the soak's question.
    async with contained(gateway, memory_slack_bytes=48 * MEBIBYTE) as others:
        for start in range(0, VANISHING, AT_ONCE):
            sockets = []
            for number in range(start, start + AT_ONCE):
                sock = connected(gateway)
                sock.send(stages[number % len(stages)])
                sockets.append(sock)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await others.go_on()
            for number, sock in enumerate(sockets):
                # One half says goodbye, the other is just gone.
                if number % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                sock.close()
    wanted = 2 * VANISHING // len(stages)
    journal = gateway.journal(tag)
    assert journal.count("start") > wanted / 2, "hardly a stream had begun"
    assert journal.count("start") == journal.count("cleanup")


async def test_slow_loris_holds_a_socket_and_nothing_else(gateway: Served) -> None:
    """Requests that come letter by letter and never end: no task, no worker, hardly memory; when they go, all is as it was."""
    async with contained(gateway) as others:
        before = rss_bytes(gateway.pid)
        sockets = [connected(gateway) for _ in range(LORISES)]
        for letter in get("/v1/tools/endless/stream", f"X-Slow: {'z' * 10}")[:-1]:
            for sock in sockets:
                sock.send(bytes([letter]))
            await asyncio.sleep(0)
        await others.go_on()
        assert descriptors(gateway.pid) >= LORISES
        assert rss_bytes(gateway.pid) - before < 16 * MEBIBYTE
        for sock in sockets:
            sock.close()


async def test_100_stalled_readers_hold_bounded_memory_and_are_cut(gateway: Served, tag: str) -> None:
    """They ask for much and read nothing: each tool waits, nobody else does, and after `write_timeout_s` they are gone."""
    async with contained(gateway, memory_slack_bytes=STALLED * MEBIBYTE):
        before = rss_bytes(gateway.pid)
        sockets = [connected(gateway, receive_buffer_bytes=4096) for _ in range(STALLED)]
        for sock in sockets:
            sock.send(get(f"/v1/tools/heavy/stream?tag={tag}&chunks=100000&size=20000&{POOL}"))
        await until(lambda: gateway.journal(tag).count("start") == STALLED, "the stalled streams")
        highest = 0

        def cut() -> bool:
            nonlocal highest
            highest = max(highest, rss_bytes(gateway.pid) - before)
            return gateway.pools()["broken"]["in_flight"] == 0

        await until(cut, "the stalled readers to be cut")
        assert highest < STALLED * MEBIBYTE * 2
        for sock in sockets:
            sock.close()
    assert gateway.journal(tag).count("cleanup") == STALLED


async def test_a_flood_of_small_frames_slows_nobody(gateway: Served) -> None:
    """As many as the connection takes, and every one is answered. A read of the socket holds 12,000 of them."""
    async with contained(gateway, patience_s=1.0) as others, raw_socket(gateway) as (reader, writer):
        tasks = [asyncio.create_task(flood(writer, client_frame(b'{"type":"ping"}'))), asyncio.create_task(swallow(reader))]
        for _ in range(10):
            await others.go_on()
        assert not tasks[0].done(), "the flood was over early"
        for task in tasks:
            task.cancel()


async def flood(writer: asyncio.StreamWriter, frame: bytes) -> None:
    """Send this frame again and again, until the connection breaks."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(frame * 1000)
            await writer.drain()
            await asyncio.sleep(0)


async def swallow(reader: asyncio.StreamReader) -> None:
    """Read all that comes."""
    while await reader.read(2**16):
        pass
