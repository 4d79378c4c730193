"""Requests that our server answers ahead of ASGI, on bare connections: whatever HTTP/1.1 allows has to come out the same."""

from __future__ import annotations

import asyncio

import pytest

from gateway.direct import DirectExchange
from tests.conftest import FakeCall, Running, Serve, until
from tests.endpoints.conftest import RawStream, kept, raw

COUNT = "/v1/tools/count/stream"
END = b"0\r\n\r\n"


def one_chunk(call: FakeCall) -> None:
    call.send(1)
    call.end()


async def send(running: Running, *parts: bytes) -> RawStream:
    """Open a connection and write these parts, each in a turn of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**20)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    return kept(RawStream(reader, writer))


def post(body: bytes, *more: bytes, version: bytes = b"HTTP/1.1", path: str = COUNT) -> bytes:
    lines = [b"POST %b %b" % (path.encode(), version), b"Host: test", b"Content-Type: application/json", *more]
    if not any(line.lower().startswith(b"transfer-encoding") for line in more):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tools whose requests were answered directly."""
    answered: list[str] = []
    original = DirectExchange.start

    def start(self: DirectExchange) -> None:
        answered.append(self._tool)
        original(self)

    monkeypatch.setattr(DirectExchange, "start", start)
    return answered


async def test_one_connection_serves_many_requests_directly(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    stream = await send(running)
    for _ in range(3):
        stream.writer.write(post(b'{"count": 3}'))
        answer = await stream.until(END)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"data: 1\n\n" in answer
        assert b"event: end" in answer
    assert direct == ["count"] * 3


async def test_a_body_in_many_parts_is_one_body(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    whole = post(b'{"count": 12345}')
    stream = await send(running, *(whole[at : at + 1] for at in range(len(whole))))
    await stream.until(END)
    assert (running.pool.calls[0].call.arguments, direct) == ({"count": 12345}, ["count"])


async def test_a_chunked_body_is_one_body(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    body = b'6\r\n{"coun\r\n6\r\nt": 7}\r\n0\r\n\r\n'
    stream = await send(running, post(body, b"Transfer-Encoding: chunked"))
    await stream.until(END)
    assert (running.pool.calls[0].call.arguments, direct) == ({"count": 7}, ["count"])


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    stream = await send(running, post(b'{"count": 1}') + post(b'{"count": 2}') + b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
    first = await running.pool.next_call()
    first.send("first")
    await stream.until(b'data: "first"\n\n')
    assert len(running.pool.calls) == 1
    first.end()
    await stream.until(END)
    second = await running.pool.next_call()
    second.send("second")
    second.end()
    assert b'data: "second"\n\n' in await stream.until(END)
    assert (await stream.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert [call.call.arguments for call in running.pool.calls] == [{"count": 1}, {"count": 2}]


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_over_the_limit_is_413_and_runs_nothing(serve: Serve, is_declared: bool) -> None:
    async with serve(body_limit_bytes=1000) as running:
        text = b'{"count": "' + b"x" * 3000 + b'"}'
        if is_declared:
            stream = await send(running, post(text))
        else:
            parts = b"".join(b"64\r\n%b\r\n" % text[at : at + 100] for at in range(0, 3000, 100))
            stream = await send(running, post(parts, b"Transfer-Encoding: chunked"))
        head = await stream.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert running.pool.calls == []


async def test_a_client_that_leaves_within_its_body_starts_nothing(running: Running) -> None:
    stream = await send(running, post(b'{"count": 3}')[:-3])
    stream.cut()
    running.pool.script = one_chunk
    await (await raw(running, "GET", COUNT)).until(END)
    assert len(running.pool.calls) == 1


async def test_connection_close_is_honoured(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    stream = await send(running, post(b"{}", b"Connection: close"))
    answer = await stream.rest()
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(END)
    assert direct == ["count"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"{}", version=b"HTTP/1.0"),
        post(b"{}", b"Expect: 100-continue"),
        post(b"{}", path="/v1/tools/c%6Funt/stream"),
    ],
    ids=["http-1.0", "expect", "escaped"],
)
async def test_what_is_out_of_the_ordinary_goes_the_usual_way(running: Running, direct: list[str], request_bytes: bytes) -> None:
    running.pool.script = one_chunk
    stream = await send(running, request_bytes)
    assert b"event: end" in await stream.until(b'"total_ms"')
    assert direct == []


async def test_an_error_is_its_problem_document_and_the_connection_goes_on(running: Running, direct: list[str]) -> None:
    stream = await send(running, post(b"[1]"))
    assert (await stream.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    await stream.until(b"}")
    running.pool.script = one_chunk
    stream.writer.write(post(b"{}"))
    assert b"data: 1\n\n" in await stream.until(END)
    assert direct == ["count", "count"]


async def test_a_mistake_while_writing_costs_the_response_and_not_the_server(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(DirectExchange, "begin", fail)
        running.pool.script = one_chunk
        stream = await send(running, post(b"{}"))
        assert await stream.rest() == b""
    await (await raw(running, "GET", COUNT)).until(END)
    await until(lambda: running.gateway.hub.open_runs == 0)


async def test_trailer_fields_are_no_header_fields(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    body = b"2\r\n{}\r\n0\r\nPrefer: respond-async\r\nAccept: text/plain\r\n\r\n"
    stream = await send(running, post(body, b"Transfer-Encoding: chunked"))
    assert (await stream.until(END)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert direct == ["count"]


@pytest.mark.parametrize(("path", "end"), [(COUNT, END), ("/livez", b'{"status":"ok"}')])
async def test_a_connection_at_rest_is_closed_after_its_time(serve: Serve, path: str, end: bytes) -> None:
    async with serve(keep_alive_timeout_s=0.2) as running:
        running.pool.script = one_chunk
        stream = await send(running)
        for _ in range(2):
            stream.writer.write(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % path.encode())
            assert (await stream.until(end)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await stream.rest() == b""


async def test_a_connection_that_is_being_answered_is_not_at_rest(serve: Serve) -> None:
    async with serve(keep_alive_timeout_s=0.05) as running:
        stream = await send(running)
        for _ in range(2):
            stream.writer.write(post(b"{}"))
            call = await running.pool.next_call()
            call.send(1)
            await stream.until(b"data: 1\n\n")
            # The connection's time to rest is over by now, if that is what it does.
            rested = asyncio.Event()
            asyncio.get_running_loop().call_later(0.1, rested.set)
            await rested.wait()
            call.send(2)
            call.end()
            assert b"data: 2\n\n" in await stream.until(END)


async def test_headers_in_any_number_of_reads_are_the_same_request(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    head = b"GET %b HTTP/1.1\r\nHost: test\r\nAccept: application/x-ndjson\r\n\r\n" % COUNT.encode()
    stream = await send(running, *(head[at : at + 1] for at in range(len(head))))
    answer = await stream.until(END)
    assert b"content-type: application/x-ndjson; charset=utf-8\r\n" in answer
    assert direct == ["count"]


async def test_a_request_kept_alive_by_a_connection_field_is_answered_directly(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    stream = await send(running, post(b"{}", b"Connection: keep-alive"))
    await stream.until(END)
    stream.writer.write(post(b"{}"))
    await stream.until(END)
    assert direct == ["count", "count"]


async def test_http_1_0_that_asks_to_be_kept_alive_goes_the_usual_way(running: Running, direct: list[str]) -> None:
    running.pool.script = one_chunk
    stream = await send(running, post(b"{}", b"Connection: keep-alive", version=b"HTTP/1.0"))
    assert b"event: end" in await stream.until(b'"total_ms"')
    assert direct == []
