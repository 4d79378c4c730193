"""Clients that take their time, or too much room, against a real process: each is told why, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import JOURNAL_ADAPTER, PATIENCE_S, Served, read_sse, served

SETTINGS = f"""
[server]
head_timeout_s = 0.3
body_timeout_s = 0.3
connections_limit = 40

[[pools]]
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
"""
POST = b"POST /v1/tools/numbered/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("slow-clients"), settings=SETTINGS) as gateway:
        yield gateway


async def ended(gateway: Served, data: bytes, *, trickle: bytes = b"") -> bytes:
    """Send, and go on with `trickle` a few times a second until the server has closed; return all it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)
    answer = asyncio.ensure_future(reader.read())
    async with asyncio.timeout(PATIENCE_S):
        while not answer.done():
            if trickle and not writer.is_closing():
                writer.write(trickle)
            await asyncio.wait([answer], timeout=0.05)
    writer.close()
    return answer.result()


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    document: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % document["status"])
    return document["status"], document["type"].removeprefix("/problems/")


@pytest.mark.parametrize(
    ("data", "trickle", "status", "slug"),
    [
        (b"GET /livez HTTP/1.1\r\n", b"X: 1\r\n", 408, "request-timeout"),
        (b"GET /livez HTTP/1.1\r\nHost: loc", b"", 408, "request-timeout"),
        (POST, b" ", 408, "request-timeout"),
        (POST, b"", 408, "request-timeout"),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 1_000_000, b"", 431, "head-too-large"),
        (b"HELO localhost\r\n", b"", 400, "invalid-request"),
    ],
    ids=["slow head", "half a head", "slow body", "no body", "large head", "no http"],
)
async def test_a_client_that_makes_no_request_is_told_why(gateway: Served, data: bytes, trickle: bytes, status: int, slug: str) -> None:
    assert problem(await ended(gateway, data, trickle=trickle)) == (status, slug)


async def test_many_slow_clients_take_nothing_from_a_stream(gateway: Served, tag: str) -> None:
    async with gateway.http() as http, http.stream("GET", f"/v1/tools/paced/stream?tag={tag}&count=200") as response:
        slow = [asyncio.ensure_future(ended(gateway, b"GET /livez HTTP/1.1\r\n", trickle=b"X: 1\r\n")) for _ in range(30)]
        story = await read_sse(response)
        answers = await asyncio.gather(*slow)
    assert story.numbers == list(range(1, 201))
    assert {problem(answer) for answer in answers} == {(408, "request-timeout")}


async def test_connections_that_say_nothing_make_room_again(gateway: Served) -> None:
    connections = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(60)]
    first = await asyncio.gather(*(reader.read() for reader, _ in connections))
    refused = [answer for answer in first if answer]
    assert refused
    assert {problem(answer) for answer in refused} == {(503, "too-many-connections")}
    for _, writer in connections:
        writer.close()
    async with gateway.http() as http:
        assert (await http.get("/livez")).status_code == 200
