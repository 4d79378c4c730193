"""What is over is freed at once, with no need for the garbage collector.

It looks seldom (serve.py), at hundreds of thousands of objects at a time. A cycle of objects behind a request would keep its run, with
all that the run's log holds, for minutes or hours: no leak, but as large as one.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import FakeCall, Running, Serve, until
from tests.endpoints.conftest import raw
from tests.endpoints.test_websocket import joined

STREAM = "/v1/tools/count/stream"


def script(call: FakeCall) -> None:
    call.send(1, 2, 3)
    if "count" not in call.call.arguments:
        call.end()


def request(method: str, path: str, mark: bytes, body: bytes | None = None, **headers: str) -> Callable[[Running], Awaitable[None]]:
    """A client of one request, who goes once `mark` has come."""

    async def ask(running: Running) -> None:
        stream = await raw(running, method, path, body, **headers)
        await stream.until(mark)
        stream.cut()

    return ask


async def socket(running: Running) -> None:
    async with joined(running) as client:
        await client.subscribe("a")
        await client.hear_until("complete")


async def abandoned_socket(running: Running) -> None:
    async with joined(running) as client:
        await client.subscribe("a", args={"count": 1})
        await client.hear_until("next")


CLIENTS: dict[str, Callable[[Running], Awaitable[None]]] = {
    "stream": request("GET", STREAM, b"0\r\n\r\n"),
    "left stream": request("GET", f"{STREAM}?count=1", b"data: 3"),
    # An escaped letter is not for the direct way.
    "stream under ASGI": request("GET", STREAM.replace("o", "%6f"), b"0\r\n\r\n"),
    "left stream under ASGI": request("GET", STREAM.replace("o", "%6f") + "?count=1", b"data: 3"),
    "lines": request("POST", STREAM, b"0\r\n\r\n", b"{}", Accept="application/x-ndjson"),
    "whole stream": request("GET", STREAM, b"}}", Accept="application/json"),
    "call": request("POST", "/v1/tools/add/call", b"}}", b'{"a":1,"b":2}'),
    "background": request("POST", "/v1/tools/count/runs", b"}", b"{}"),
    "problem": request("POST", "/v1/tools/nothing/stream", b"}", b"{}"),
    "list": request("GET", "/v1/runs", b"}"),
    "socket": socket,
    "abandoned socket": abandoned_socket,
}


@contextmanager
def garbage(found: set[str]) -> Iterator[None]:
    """Add the classes of ours of which the block leaves something to the collector: packages and names."""
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        found |= {f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


async def left_behind(running: Running, client: Callable[[Running], Awaitable[None]]) -> set[str]:
    """The classes of ours of which three visits of a client leave something to the collector."""

    async def visit() -> None:
        await client(running)
        await until(lambda: not running.open_runs() and not running.http.server_state.tasks)
        await until(lambda: not running.http.server_state.connections)
        await until(lambda: not running.gateway.hub.known_runs)
        running.pool.forget_calls()

    # What is made once is none of it.
    await visit()
    left: set[str] = set()
    with garbage(left):
        for _ in range(3):
            await visit()
    return left


@pytest.mark.parametrize("kind", CLIENTS)
async def test_nothing_of_a_run_is_left_to_the_collector(serve: Serve, kind: str) -> None:
    async with serve(first_byte_hold_s=0.3, runlog={"ttl_s": 0.05}) as running:
        running.pool.script = script

        left = await left_behind(running, CLIENTS[kind])
    assert {name for name in left if name.startswith(("gateway.", "websockets."))} == set()
