"""Every request is let in, or is not, ahead of everything else: on the direct way, on the ASGI way and behind FastAPI's router."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import HTTPConnection

from gateway.caller import Caller
from gateway.errors import GatewayError
from tests.conftest import FakeCall, Running
from tests.endpoints.conftest import JSON, problem, raw

PATHS = ("/v1/tools/count/stream", "/v1/tools/a%20b/stream", "/v1/tools", "/livez", "/nowhere")


class Guests:
    """An admission by the header `guest`: who says nothing is refused, and `slow` is a matter of waiting."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def admit_now(self, connection: HTTPConnection) -> Caller | None:
        guest = connection.headers.get("guest")
        if guest is None:
            raise GatewayError("origin-not-allowed", "Who are you?")
        return None if guest == "slow" else Caller(guest)

    async def admit(self, connection: HTTPConnection) -> Caller:
        await asyncio.sleep(0)
        self.waited.append(connection.headers["guest"])
        if connection.url.path == "/nowhere":
            raise GatewayError("origin-not-allowed", "Not there")
        return Caller(connection.headers["guest"])


@pytest.fixture
def guests(running: Running) -> Guests:
    running.app.admission = Guests()

    def one_chunk(call: FakeCall) -> None:
        call.send(1)
        call.end()

    running.pool.script = one_chunk
    return running.app.admission


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_that_is_refused_reaches_nothing(running: Running, guests: Guests, path: str) -> None:
    answer = await running.client.get(path)
    assert problem(answer, 403, "origin-not-allowed")["detail"] == "Who are you?"
    assert running.pool.calls == []


@pytest.mark.parametrize("guest", ["quick", "slow"])
async def test_the_caller_stands_in_the_call(running: Running, guests: Guests, guest: str) -> None:
    answer = await running.client.get(PATHS[0], headers={**JSON, "guest": guest})
    assert answer.status_code == 200
    assert [call.call.caller for call in running.pool.calls] == [Caller(guest)]
    assert guests.waited == (["slow"] if guest == "slow" else [])


async def test_who_is_refused_after_a_wait_is_told_so(running: Running, guests: Guests) -> None:
    problem(await running.client.get("/nowhere", headers={"guest": "slow"}), 403, "origin-not-allowed")


async def test_a_refusal_does_not_wait_for_the_body(running: Running, guests: Guests) -> None:
    stream = await raw(running, "POST", PATHS[0], content_length="1000")
    assert b" 403 " in await stream.until(b"\r\n")
