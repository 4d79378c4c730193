"""A client's connection under ASGI: it may be lost before anybody listens for that, and is cut without a word in the server's log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from gateway.call import ToolCall
from gateway.caller import ANONYMOUS, Caller
from gateway.runs.hub import Hub
from gateway.runs.idempotency import Claim
from gateway.runs.policy import RunPolicy
from gateway.runs.run import Run
from tests.conftest import Running, Serve, until, within
from tests.endpoints.conftest import JSON, NDJSON, SSE, RawStream, raw

COUNT = "/v1/tools/count/stream"
# The same to FastAPI, and none of the paths that go past ASGI.
UNDER_ASGI = "/v1/tools/c%6Funt/stream"


class SlowLog:
    """The other gateways' log: it answers when the test says so."""

    followed = ()

    def __init__(self, hub: Hub) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self._hub = hub

    async def start(self, call: ToolCall, policy: RunPolicy, claim: Claim | None = None) -> Run:
        self.asked.set()
        await self.answers.wait()
        return self._hub.open(call, policy, claim)


class SlowAdmission:
    """Lets everybody in when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()

    def admit_now(self, connection: HTTPConnection) -> Caller | None:
        return None

    async def admit(self, connection: HTTPConnection) -> Caller:
        self.asked.set()
        await self.answers.wait()
        return ANONYMOUS


async def lose(running: Running, stream: RawStream) -> None:
    """Cut the only connection and wait until the server has seen it."""
    stream.cut()
    await until(lambda: not running.http.server_state.connections)


@pytest.mark.parametrize("accept", [SSE, NDJSON, JSON])
async def test_a_client_that_left_while_the_shared_log_was_asked_has_left_the_run(running: Running, accept: dict[str, str]) -> None:
    log: Any = SlowLog(running.gateway.hub)
    running.gateway.hub.others = log
    stream = await raw(running, "GET", COUNT, **accept)
    await within(log.asked.wait())
    await lose(running, stream)
    log.answers.set()
    call = await running.pool.next_call()
    await within(call.cancelled.wait())


async def test_a_client_that_left_while_it_was_to_be_admitted_has_left_the_run(running: Running) -> None:
    admission = running.app.admission = SlowAdmission()
    stream = await raw(running, "GET", COUNT)
    await within(admission.asked.wait())
    await lose(running, stream)
    admission.answers.set()
    call = await running.pool.next_call()
    await within(call.cancelled.wait())


@pytest.mark.parametrize("accept", [SSE, NDJSON, JSON])
@pytest.mark.parametrize("is_streaming", [True, False])
async def test_a_reader_that_is_cut_is_no_mistake_to_the_server(
    serve: Serve, caplog: pytest.LogCaptureFixture, accept: dict[str, str], is_streaming: bool
) -> None:
    async with serve(first_byte_hold_s=0 if is_streaming else 60) as running:
        stream = await raw(running, "GET", UNDER_ASGI, **accept)
        call = await running.pool.next_call()
        if is_streaming and accept is not JSON:
            call.send(1)
            await stream.until(b"1")
            await stream.until(b"\n")
        (reader,) = running.gateway.hub.get(call.run_id, ANONYMOUS).readers
        reader.cut = True
        reader.wake()
        await stream.rest()
        await until(lambda: not running.http.server_state.tasks)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
