"""The streams that a path is measured with."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.endpoints import probe
from tests.conftest import Running, Serve, until
from tests.endpoints.conftest import messages, problem, raw

STREAM = "/v1/probe/stream"


async def state(running: Running, name: str) -> Any:
    return (await running.client.get(f"/v1/probe/{name}")).json()


async def test_a_probe_says_when_it_sent_what_and_that_it_is_done(running: Running) -> None:
    response = await running.client.get(
        f"{STREAM}?chunks=3&interval_ms=20&bytes=10", headers={"Via": "1.1 somebody", "X-Real-IP": "10.0.0.7"}
    )
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "no-transform" in response.headers["cache-control"]
    assert response.headers["x-accel-buffering"] == "no"
    events = messages(response.content)
    assert [name for name, _ in events] == ["probe", "message", "message", "message", "end"]
    first = events[0][1]
    assert (first["heartbeat_ms"], first["body_limit_bytes"]) == (10_000, 16 * 1024 * 1024)
    assert (first["headers"]["via"], first["headers"]["x-real-ip"]) == ("1.1 somebody", "")
    assert [(data["n"], data["padding"]) for _, data in events[1:4]] == [(n, "x" * 10) for n in (1, 2, 3)]
    times = [data["at_ms"] for _, data in events[1:]]
    assert times == sorted(times)
    assert all(at_ms >= due for at_ms, due in zip(times, (20, 40, 60, 60), strict=True))
    assert await state(running, first["probe"]) == {"probe": first["probe"], "state": "done", "after_ms": pytest.approx(times[-1], abs=200)}


async def test_silence_has_heartbeats_only_where_they_are_asked_for(running: Running) -> None:
    with_them = await running.client.get(f"{STREAM}?chunks=0&silent_ms=120&heartbeat_ms=30")
    assert with_them.text.count(": hb\n") in (2, 3, 4)
    without = await running.client.get(f"{STREAM}?chunks=0&silent_ms=60")
    assert ": hb" not in without.text
    assert "event: end" in without.text


async def test_a_client_that_leaves_is_seen_to_leave(running: Running) -> None:
    stream = await raw(running, "GET", f"{STREAM}?chunks=0&silent_ms=60000")
    first = json.loads((await stream.until(b"}}\n")).partition(b"data: ")[2])
    assert (await state(running, first["probe"]))["state"] == "open"
    stream.cut()

    async def left() -> bool:
        return bool((await state(running, first["probe"]))["state"] == "left")

    found = False
    while not found:
        found = await left()
    assert (await state(running, first["probe"]))["after_ms"] < 60_000


async def test_a_client_that_does_not_read_is_cut(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PATIENCE_S", 0.0)
    stream = await raw(running, "GET", f"{STREAM}?chunks=1000&interval_ms=1&bytes=65536", receive_buffer_bytes=4096)
    open_probes = running.http.server_state.connections
    await until(lambda: bool(open_probes))
    await until(lambda: not any(not protocol.transport.is_closing() for protocol in open_probes))
    stream.cut()


@pytest.mark.parametrize(
    "query", ["chunks=1001", "chunks=-1", "interval_ms=0", "bytes=65537", "silent_ms=x", "nobody=1", "chunks=1000&interval_ms=60000"]
)
async def test_what_is_too_much_is_refused(running: Running, query: str) -> None:
    document = problem(await running.client.get(f"{STREAM}?{query}"), 400, "invalid-option")
    assert query.partition("=")[0] in document["detail"]


async def test_so_many_at_once_and_no_more(running: Running) -> None:
    streams = [await raw(running, "GET", f"{STREAM}?chunks=0&silent_ms=60000") for _ in range(probe.OPEN_LIMIT)]
    for stream in streams:
        await stream.until(b"event: probe")
    problem(await running.client.get(STREAM), 429, "too-many-streams")
    streams[0].cut()

    async def fits() -> httpx.Response:
        return await running.client.get(f"{STREAM}?chunks=0")

    while (await fits()).status_code != 200:
        pass


async def test_a_body_is_counted_up_to_the_limit(serve: Serve) -> None:
    async with serve(body_limit_bytes=1000) as running:
        assert (await running.client.post("/v1/probe/body", content=b"x" * 1000)).json() == {"bytes": 1000}
        problem(await running.client.post("/v1/probe/body", content=b"x" * 1001), 413, "body-too-large")


async def test_an_unknown_probe_is_not_found_and_probes_can_be_off(running: Running, serve: Serve) -> None:
    problem(await running.client.get("/v1/probe/p_x"), 404, "route-not-found")
    async with serve(probes=False) as other:
        problem(await other.client.get(STREAM), 404, "route-not-found")
