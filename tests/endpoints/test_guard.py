"""Clients that are slow, large, many or wrong before their request is there, on bare connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from gateway.codec.websocket import SUBPROTOCOL
from gateway.intake import PIPELINE_LIMIT
from gateway.server import FRAGMENTS_LIMIT, LinkedWebSocket
from tests.conftest import FakeCall, Running, Serve, until, within
from tests.endpoints.conftest import RawStream, kept, raw

COUNT = "/v1/tools/count/stream"
GET = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST /v1/tools/count/stream HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
END = b"0\r\n\r\n"


async def opened(running: Running, data: bytes = b"") -> RawStream:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**20)
    writer.write(data)
    return kept(RawStream(reader, writer))


async def refused(stream: RawStream, status: int, slug: str) -> dict[str, Any]:
    """The problem that a connection ends with."""
    head, _, body = (await stream.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"\r\nconnection: close" in head
    assert b"\r\ncontent-type: application/problem+json" in head
    assert b"\r\nx-content-type-options: nosniff" in head
    document = orjson.loads(body)
    assert (document["type"], document["status"]) == (f"/problems/{slug}", status)
    return dict(document)


def one_chunk(call: FakeCall) -> None:
    call.send(1)
    call.end()


# what is too large


@pytest.mark.parametrize(
    "head",
    [
        GET[:-2] + b"X: " + b"x" * 3000 + b"\r\n\r\n",
        GET[:-2] + b"X: " + b"x" * 3000,
        GET[:-2] + b"X: 1\r\n" * 500,
        b"GET /" + b"x" * 3000,
        b"GET /livez?" + b"x" * 3000 + b" HTTP/1.1\r\nHost: test\r\n\r\n",
    ],
    ids=["complete", "incomplete", "many fields", "incomplete path", "query"],
)
async def test_a_head_that_is_too_large_is_refused(serve: Serve, head: bytes) -> None:
    async with serve(head_limit_bytes=2048, head_fields_limit=1000) as running:
        assert "2048 bytes" in (await refused(await opened(running, head), 431, "head-too-large"))["detail"]


async def test_a_head_that_trickles_in_is_bounded_as_a_whole(serve: Serve) -> None:
    async with serve(head_limit_bytes=2048, head_fields_limit=1000) as running:
        stream = await opened(running, GET[:-2])
        for _ in range(40):
            stream.writer.write(b"X: " + b"x" * 100 + b"\r\n")
            await asyncio.sleep(0)
        await refused(stream, 431, "head-too-large")


async def test_a_head_with_too_many_fields_is_refused(serve: Serve) -> None:
    async with serve(head_fields_limit=10) as running:
        await (await opened(running, GET[:-2] + b"X: 1\r\n" * 9 + b"\r\n")).until(b"\r\n\r\n")
        assert "10 fields" in (await refused(await opened(running, GET[:-2] + b"X: 1\r\n" * 10 + b"\r\n"), 431, "head-too-large"))["detail"]


async def test_what_comes_with_a_head_is_not_part_of_it(serve: Serve) -> None:
    """A body in the same packet, and requests behind it."""
    async with serve(head_limit_bytes=1024) as running:
        running.pool.script = one_chunk
        body = b'{"count": 1%b}' % (b" " * 5000)
        post = POST.replace(b"Content-Length: 12", b"Content-Length: %d" % len(body)) + body
        stream = await opened(running, post + post + GET[:20])
        for _ in range(2):
            assert b" 200 OK" in await stream.until(END)
        stream.writer.write(GET[20:])
        assert b" 200 OK" in await stream.until(b"\r\n\r\n")


async def test_trailers_are_bounded_and_no_part_of_the_head(serve: Serve) -> None:
    async with serve(head_fields_limit=10) as running:
        running.pool.script = one_chunk
        chunked = POST.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked") + b"c\r\n" + b'{"count": 1}' + b"\r\n0\r\n"
        stream = await opened(running, chunked + b"Idempotency-Key: late\r\n\r\n")
        run = orjson.loads((await stream.until(END)).partition(b"event: start\ndata: ")[2].partition(b"\n")[0])["run"]
        stream.writer.write(chunked + b"Idempotency-Key: late\r\n\r\n")
        again = orjson.loads((await stream.until(END)).partition(b"event: start\ndata: ")[2].partition(b"\n")[0])["run"]
        assert run != again, "the key of the trailer was taken for one of the head"
        await refused(await opened(running, chunked + b"X: 1\r\n" * 20), 400, "invalid-request")
        await refused(await opened(running, chunked + b"X: " + b"x" * 1_000_000), 400, "invalid-request")


async def test_a_body_that_is_all_framing_is_refused(running: Running) -> None:
    stream = await opened(running, POST.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked"))
    stream.writer.write(b"1;" + b"x" * 1_000_000)
    await refused(stream, 400, "invalid-request")


async def test_pipelined_requests_are_bounded(running: Running) -> None:
    stream = await opened(running, POST + b'{"count": 1}')
    call = await running.pool.next_call()
    stream.writer.write(GET * (PIPELINE_LIMIT + 1))
    await within(call.cancelled.wait())
    assert await stream.rest() == b""


async def test_pipelined_requests_up_to_the_bound_are_answered(running: Running) -> None:
    stream = await opened(running, GET * PIPELINE_LIMIT)
    for _ in range(PIPELINE_LIMIT):
        assert b" 200 OK" in await stream.until(b"}")


# what comes ahead of the answer


HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %b\r\n" % SUBPROTOCOL.encode()
)


@pytest.mark.parametrize("filler", [b"", b"Cookie: " + b"x" * 6000 + b"\r\n"], ids=["small head", "head of several steps"])
async def test_frames_in_the_packet_of_the_handshake_are_heard_once_it_is_answered(running: Running, filler: bytes) -> None:
    ping, init = b"\x89\x81\0\0\0\0x", b"\x81\x9a\0\0\0\0" + b'{"type":"connection_init"}'
    stream = await opened(running, HANDSHAKE + filler + b"\r\n" + ping + init * 2)
    assert (await stream.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    # The pong, the answer to the first init, and the close for the second.
    assert await stream.until(b"x") == b"\x8a\x01x"
    await stream.until(b'"connection_ack"')
    await stream.until((4429).to_bytes(2, "big"))


async def test_frames_behind_a_handshake_that_is_refused_are_dropped(running: Running) -> None:
    stream = await opened(running, HANDSHAKE.replace(b"/v1/ws", b"/v1/nothing") + b"\r\n" + b"\x89\x81\0\0\0\0x" * 2000)
    assert (await stream.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 4")
    assert b"\x8a\x01x" not in await stream.rest()


# what is too slow


async def test_a_connection_that_says_nothing_is_closed(serve: Serve) -> None:
    async with serve(head_timeout_s=0.05) as running:
        assert await (await opened(running)).rest() == b""


@pytest.mark.parametrize("part", [GET[:3], GET[:-2], POST[:-1]])
async def test_a_head_that_does_not_come_is_a_time_out(serve: Serve, part: bytes) -> None:
    async with serve(head_timeout_s=0.05) as running:
        assert "0.05 s" in (await refused(await opened(running, part), 408, "request-timeout"))["detail"]


async def test_a_head_that_trickles_in_wins_no_time(serve: Serve) -> None:
    async with serve(head_timeout_s=0.2) as running:
        stream = await opened(running, GET[:-2])
        answer = asyncio.ensure_future(stream.rest())
        while not answer.done():
            stream.writer.write(b"X: 1\r\n")
            await asyncio.wait([answer], timeout=0.02)
        assert answer.result().startswith(b"HTTP/1.1 408 ")


async def test_a_second_request_has_its_own_time(serve: Serve) -> None:
    async with serve(head_timeout_s=0.05, keep_alive_timeout_s=30) as running:
        stream = await opened(running, GET)
        await stream.until(b"}")
        # It may come later than the first had to.
        await asyncio.sleep(0.1)
        stream.writer.write(GET)
        await stream.until(b"}")
        stream.writer.write(GET[:5])
        await refused(stream, 408, "request-timeout")


async def test_an_idle_connection_is_closed(serve: Serve) -> None:
    async with serve(keep_alive_timeout_s=0.05) as running:
        stream = await opened(running, GET)
        await stream.until(b"}")
        assert await stream.rest() == b""


async def test_time_outs_are_not_for_answers(serve: Serve) -> None:
    """Neither for one that takes longer, nor for the beginning of a request behind it, which is somebody's right."""
    async with serve(head_timeout_s=0.05, keep_alive_timeout_s=0.05, body_timeout_s=0.05) as running:
        stream = await opened(running, POST + b'{"count": 1}' + GET[:5])
        call = await running.pool.next_call()
        await asyncio.sleep(0.3)
        one_chunk(call)
        assert b"data: 1\n\n" in await stream.until(END)
        await refused(stream, 408, "request-timeout")


@pytest.mark.parametrize("path", ["/v1/tools/count/stream", "/v1/tools/c%6Funt/stream", "/v1/sessions"])
async def test_a_body_that_does_not_come_is_a_time_out(serve: Serve, path: str) -> None:
    async with serve(body_timeout_s=0.05) as running:
        stream = await opened(running, POST.replace(b"/v1/tools/count/stream", path.encode()) + b'{"count')
        assert "body" in (await refused(stream, 408, "request-timeout"))["detail"]
        assert running.pool.requests == []


async def test_a_body_that_makes_progress_has_the_time_for_it(serve: Serve) -> None:
    async with serve(body_timeout_s=0.05, body_rate_bytes_s=10) as running:
        running.pool.script = one_chunk
        # Eleven bytes are worth a second more.
        stream = await opened(running, POST + b'{"count": 1')
        await asyncio.sleep(0.3)
        stream.writer.write(b"}")
        assert b" 200 OK" in await stream.until(END)


async def test_a_body_nobody_reads_any_more_has_a_time_out_too(serve: Serve) -> None:
    async with serve(body_timeout_s=0.3, body_limit_bytes=10) as running:
        stream = await opened(running, POST.replace(b"Content-Length: 12", b"Content-Length: 1000000") + b"x" * 100)
        assert b" 413 " in await stream.until(b"\r\n\r\n")
        feeding = asyncio.ensure_future(stream.rest())
        while not feeding.done():
            stream.writer.write(b"x")
            await asyncio.wait([feeding], timeout=0.02)


# what is wrong


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"NONSENSE / HTTP/1.1\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: test\r\nBad field: 1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: test\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_problem(running: Running, data: bytes) -> None:
    await refused(await opened(running, data), 400, "invalid-request")


async def test_nonsense_behind_a_request_cuts_its_answer(running: Running) -> None:
    """An error within a stream would be taken for a part of it."""
    stream = await opened(running, POST + b'{"count": 1}')
    call = await running.pool.next_call()
    stream.writer.write(b"NONSENSE\r\n\r\n")
    await within(call.cancelled.wait())
    assert await stream.rest() == b""


async def test_an_upgrade_to_something_else_is_only_an_offer(running: Running) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    assert b" 200 OK" in await (await opened(running, GET[:-2] + offer)).until(b"}")


# what is too many


async def test_connections_over_the_limit_are_refused_and_said_to_come_back(serve: Serve) -> None:
    async with serve(connections_limit=2) as running:
        first, second = await opened(running, GET), await opened(running, GET)
        for stream in (first, second):
            await stream.until(b"}")
        third = await opened(running)
        head = await third.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in head.lower()
        assert b"server.connections_limit" in await third.rest()
        first.cut()
        await until(lambda: len(running.http._state.peers) == 1)
        await (await opened(running, GET)).until(b"}")


async def test_connections_of_one_address_have_a_limit_of_their_own(serve: Serve) -> None:
    async with serve(connections_per_address_limit=1) as running:
        await (await opened(running, GET)).until(b"}")
        assert "from 127.0.0.1" in (await refused(await opened(running), 503, "too-many-connections"))["detail"]
    async with serve(connections_per_address_limit=1, trusted_proxies=("127.0.0.0/8",)) as running:
        for _ in range(3):
            await (await opened(running, GET)).until(b"}")


async def test_a_socket_is_a_connection_until_it_closes(serve: Serve) -> None:
    async with serve(connections_limit=1) as running:
        peers = running.http._state.peers
        async with connect(f"{running.ws_url}/v1/tools/nothing/ws", proxy=None) as socket:
            await within(socket.wait_closed())
        await until(lambda: len(peers) == 0)
        async with connect(f"{running.ws_url}/v1/tools/count/ws", proxy=None):
            await refused(await opened(running), 503, "too-many-connections")
        await until(lambda: len(peers) == 0)
        await (await opened(running, GET)).until(b"}")


# sockets


async def test_a_message_in_fragments_is_bounded_as_a_whole(serve: Serve) -> None:
    async with serve(socket_frame_limit_bytes=1000) as running:
        async with connect(f"{running.ws_url}/v1/ws", subprotocols=[SUBPROTOCOL], proxy=None) as socket:
            with contextlib.suppress(ConnectionClosed):
                await socket.send(["x" * 300] * 4)
            await within(socket.wait_closed())
        assert socket.close_code == 1009


async def test_a_message_of_empty_fragments_is_bounded_as_well(running: Running) -> None:
    async with connect(f"{running.ws_url}/v1/ws", subprotocols=[SUBPROTOCOL], proxy=None) as socket:
        socket.protocol.send_text(b"", fin=False)
        for _ in range(FRAGMENTS_LIMIT + 1):
            socket.protocol.send_continuation(b"", fin=False)
        socket.transport.write(b"".join(socket.protocol.data_to_send()))
        with pytest.raises(ConnectionClosed):
            await within(socket.recv())
        assert (socket.close_code, socket.close_reason) == (1009, f"a message of more than {FRAGMENTS_LIMIT} fragments")


async def test_a_peer_that_answers_no_ping_is_gone(serve: Serve) -> None:
    async with serve(socket_ping_s=0.05) as running:
        stream = await raw(running, "GET", "/v1/ws", **UPGRADE)
        await stream.until(b"\r\n\r\n")
        frames = await stream.rest()
        assert frames[0] == 0x80 | Opcode.PING
        assert b"keepalive ping timeout" in frames


async def test_pings_of_a_peer_that_reads_nothing_pile_up_no_answers(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets: list[LinkedWebSocket] = []
    pings = 0
    original = LinkedWebSocket.handle_ping

    def count(self: LinkedWebSocket) -> None:
        nonlocal pings
        pings += 1
        sockets[:] = [self]
        original(self)

    monkeypatch.setattr(LinkedWebSocket, "handle_ping", count)
    stream = await raw(running, "GET", "/v1/ws", receive_buffer_bytes=4096, **UPGRADE)
    await stream.until(b"\r\n\r\n")
    # Masked with zeros: each is answered with as much.
    ping = bytes([0x80 | Opcode.PING, 0x80 | 125, 0, 0, 0, 0]) + b"x" * 125
    for _ in range(400):
        stream.writer.write(ping * 100)
        await stream.writer.drain()
    await until(lambda: pings == 40_000)
    assert sockets[0].transport.get_write_buffer_size() < 1_000_000


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    "Sec_WebSocket_Protocol": "snakepit.gateway.v1",
}


async def test_a_socket_that_is_refused_is_no_mistake_of_ours(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    stream = await raw(running, "GET", "/v1/ws", Origin="https://evil.example", **UPGRADE)
    answer = await stream.rest()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"x-content-type-options: nosniff" in answer
    assert caplog.records == []
