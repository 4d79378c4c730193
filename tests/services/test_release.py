"""What is over of a service's calls is freed at once, as of tools' (tests/endpoints/test_release.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.conftest import Running, Serve, until
from tests.endpoints.test_release import left_behind, request
from tests.services import library

RPC = "/v1/rpc/test.library.v1.Library"
CLIENTS: dict[str, Callable[[Running], Awaitable[None]]] = {
    "stream": request("POST", f"{RPC}/Count", b"0\r\n\r\n", b'{"to":3}'),
    "left stream": request("POST", f"{RPC}/Count", b'{"number":2}', b'{"pauseMs":2}'),
    "answer": request("POST", f"{RPC}/GetBook", b"}", b'{"name":"a"}'),
    "failure": request("POST", f"{RPC}/Fail", b"}]", b'{"code":3,"withDetails":true}'),
    "annotated": request("GET", "/v1/library/shelves/1/books/a", b"}"),
    "problem": request("POST", f"{RPC}/GetBook", b"}]", b'{"nam":"a"}'),
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
async def test_nothing_of_a_call_is_left_to_the_collector(
    serve: Serve, library_server: library.Server, client: Callable[[Running], Awaitable[None]]
) -> None:
    service = {"name": "library", "address": library_server.address}
    async with serve(services=[service], runlog={"ttl_s": 0.05}) as running:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        found = await left_behind(running, client)
    assert {name for name in found if name.startswith("gateway.")} == set()
