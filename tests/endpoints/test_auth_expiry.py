"""A credential that expires while its caller reads: the reader is told and leaves, in every format; the run's policy says what then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway import timers
from tests.auth.provider import AUDIENCE, ISSUER, Provider, provided
from tests.conftest import Running, Serve, until, within
from tests.endpoints.conftest import JSON, NDJSON, SSE, problem, raw
from tests.endpoints.people import auth
from tests.endpoints.test_websocket import joined

STREAM = "/v1/tools/count/stream"


@pytest.fixture
async def federated(serve: Serve) -> AsyncIterator[tuple[Running, Provider]]:
    with provided() as provider:
        async with serve(auth=auth(jwks=provider.url, issuer=ISSUER, audience=AUDIENCE, leeway_s=0), first_byte_hold_s=0.01) as running:
            yield running, provider


def brief(provider: Provider, seconds: float = 2) -> dict[str, str]:
    """A token that expires soon, on the second."""
    return {"Authorization": f"Bearer {provider.token(exp=int(time.time() + seconds))}"}


async def test_an_event_stream_ends_without_an_id_and_goes_on_with_a_new_credential(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    stream = await raw(running, "GET", f"{STREAM}?_on_disconnect=continue", **{**SSE, **brief(provider)})
    call = await running.pool.next_call()
    call.send("one")
    text = await stream.until(b"\r\n0\r\n\r\n")
    assert b'"one"' in text
    end = text[text.rindex(b"\n\n", 0, text.rindex(b"event: end")) :]
    assert b"\nid:" not in end
    assert b'"status":"auth_expired"' in end
    assert b"/problems/auth-expired" in end
    assert not call.cancelled.is_set()
    call.send("two")
    call.end()
    answer = await running.client.get(
        f"{STREAM}?_on_disconnect=continue", headers={**SSE, **brief(provider, 60), "Last-Event-ID": f"{call.run_id}.1"}
    )
    assert ('"two"' in answer.text, '"one"' in answer.text, '"status":"ok"' in answer.text) == (True, False, True)


async def test_lines_end_with_it(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    async with running.client.stream("GET", STREAM, headers={**NDJSON, **brief(provider)}) as answer:
        (await running.pool.next_call()).send(1)
        lines = [orjson.loads(line) async for line in answer.aiter_lines() if line]
    assert lines[-1]["end"]["status"] == "auth_expired"
    # Nobody else reads, and the policy is `cancel`.
    await until(lambda: running.pool.calls[0].cancelled.is_set())


async def test_an_answer_that_is_one_document_is_a_401(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    answer = await running.client.get(STREAM, headers={**JSON, **brief(provider)})
    problem(answer, 401, "auth-expired")
    call = await running.client.post("/v1/tools/add/call", json={"a": 1, "b": 2}, headers=brief(provider))
    problem(call, 401, "auth-expired")


async def test_a_held_status_line_is_a_401(serve: Serve) -> None:
    with provided() as provider:
        async with serve(auth=auth(jwks=provider.url, issuer=ISSUER, audience=AUDIENCE, leeway_s=0), first_byte_hold_s=30) as running:
            problem(await running.client.get(STREAM, headers={**SSE, **brief(provider)}), 401, "auth-expired")


async def test_a_socket_says_it_for_each_run_and_closes_4401(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    async with joined(running, additional_headers=brief(provider)) as client:
        await client.subscribe("a", credit=1)
        await client.subscribe("b")
        for _ in range(2):
            (await running.pool.next_call()).send(1, 2, 3)
        frames: list[dict[str, Any]] = []
        while sum(frame["type"] == "error" for frame in frames) < 2:
            frames.append(await client.hear())
        errors = [frame for frame in frames if frame["type"] == "error"]
        assert {frame["payload"]["type"] for frame in errors} == {"/problems/auth-expired"}
        assert {frame["id"] for frame in errors} == {"a", "b"}
        assert (await client.closed())[0] == 4401


async def test_a_silent_socket_closes_4401(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    async with joined(running, init=False) as client:
        await client.say("connection_init", payload={"token": brief(provider)["Authorization"].removeprefix("Bearer ")})
        assert (await client.hear())["type"] == "connection_ack"
        assert (await client.closed())[0] == 4401


async def test_a_plain_socket_says_it_and_closes_4401(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    async with connect(f"{running.ws_url}/v1/tools/count/ws", additional_headers=brief(provider), proxy=None) as socket:
        messages: list[dict[str, Any]] = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                messages.append(orjson.loads(await within(socket.recv())))
        await within(socket.wait_closed())
    assert (messages[-1]["event"], messages[-1]["data"]["status"], "id" in messages[-1]) == ("end", "auth_expired", False)
    assert socket.close_code == 4401


async def test_a_reader_that_left_in_time_leaves_no_timer_behind(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    running.pool.script = lambda call: call.end()
    answer = await running.client.get(STREAM, headers={**SSE, **brief(provider, 1000)})
    assert '"status":"ok"' in answer.text
    kept = [timer.callback for _, _, timer in timers.running()._heap if timer.callback is not None]
    assert not [callback for callback in kept if "_expire" in repr(callback)]
