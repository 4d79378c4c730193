"""SIGTERM under load, over every front door at once: who is told what, and in which order. `pytest -s` shows the timeline."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
import websockets

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.harness import JOURNAL_ADAPTER, Served, bridge, tool_request, until
from tests.e2e.socketclient import joined

DELAY_S, TIMEOUT_S, RETRY_MS = 1.0, 3.0, 1000
SETTINGS = f"""
[server]
drain_delay_s = {DELAY_S}
drain_timeout_s = {TIMEOUT_S}
retry_ms = {RETRY_MS}
reconnect_ms = {RETRY_MS}

[[pools]]
name = "journal"
adapter = "{JOURNAL_ADAPTER}"
size = 2
concurrency = 16

[[pools]]
name = "narrow"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 1
queue_timeout_s = 60
"""


class Timeline:
    """What happened to whom, and how long after the signal."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.entries: list[tuple[float, str]] = []

    def note(self, what: str) -> None:
        self.entries.append((time.monotonic() - self.began, what))

    def at(self, what: str) -> float:
        return next(when for when, happened in self.entries if happened == what)

    def __str__(self) -> str:
        return "\n".join(f"{when:7.3f} s  {what}" for when, what in sorted(self.entries))


async def test_drain_under_load_tells_everybody_in_order(serve: Callable[..., Served], tag: str) -> None:
    gateway = serve(settings=SETTINGS)
    line = Timeline()
    ends: dict[str, Any] = {}

    async def stream(name: str, path: str, accept: str = "text/event-stream") -> None:
        async with gateway.http() as client, client.stream("GET", path, headers={"Accept": accept}) as response:
            ends[name] = [text async for text in response.aiter_lines() if text]
        line.note(f"{name}: over")

    async def unary() -> None:
        async with gateway.http() as client:
            ends["unary"] = await client.post("/v1/tools/wait/call", json={"tag": f"{tag}u"})
        line.note("unary: over")

    async def grpc_stream(stub: Any) -> None:
        try:
            async for _ in stub.ExecuteStreamingTool(tool_request("s", "endless", tag=f"{tag}g")):
                pass
        except grpc.aio.AioRpcError as exc:
            ends["grpc"] = exc.code()
        line.note("gRPC: over")

    async with (
        gateway.http() as client,
        bridge(gateway) as stub,
        joined(gateway) as socket,
        joined(gateway) as idle,
        asyncio.TaskGroup() as load,
    ):
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"))
        load.create_task(stream("SSE endless", f"/v1/tools/endless/stream?tag={tag}e"))
        load.create_task(stream("SSE ends in time", f"/v1/tools/held/stream?tag={tag}h&count=3&gate=2"))
        load.create_task(stream("NDJSON endless", f"/v1/tools/endless_async/stream?tag={tag}n", "application/x-ndjson"))
        load.create_task(stream("first in the queue's pool", f"/v1/tools/held/stream?tag={tag}q&count=2&gate=2&_pool=narrow"))
        load.create_task(unary())
        load.create_task(grpc_stream(stub))
        await socket.say("subscribe", id="a", payload={"tool": "endless", "args": {"tag": f"{tag}w"}})
        background = (await client.post("/v1/tools/endless/runs", json={"tag": f"{tag}b"})).json()["run"]
        for suffix in "ehnqugwb":
            await until(lambda suffix=suffix: gateway.journal(f"{tag}{suffix}"), f"the run {suffix}")  # type: ignore[misc]
        load.create_task(stream("queued", f"/v1/tools/numbered/stream?tag={tag}k&count=2&_pool=narrow"))
        await until(lambda: gateway.pools()["narrow"]["queued"] == 1, "the queue")

        line.began = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        line.note("SIGTERM")

        await until(lambda: gateway.client.get("/readyz").status_code == 503, "readyz")
        line.note("readyz: 503")
        late = await client.get(f"/v1/tools/numbered/stream?tag={tag}l&count=1", headers={"Accept": "application/json"})
        line.note("a new run begins while those who route hear of it")
        assert (late.status_code, late.headers["connection"]) == (200, "close")

        goaway = await idle.hear_until("goaway")
        line.note("goaway")
        assert RETRY_MS // 2 <= goaway["payload"]["reconnect_in_ms"] <= RETRY_MS * 3 // 2
        refused = await client.get(f"/v1/tools/numbered/stream?tag={tag}x&count=1")
        line.note("a new run: 503")
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/shutting-down")
        assert 1 <= int(refused.headers["retry-after"]) <= 8
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await idle.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        line.note("the socket without runs: 1012")
        with pytest.raises(grpc.aio.AioRpcError) as unavailable:
            await stub.Ping(pb.PingRequest(message="new"))
        assert unavailable.value.code() is grpc.StatusCode.UNAVAILABLE
        line.note("a new gRPC call: UNAVAILABLE")

        gateway.open_gate(f"{tag}h", 2)
        gateway.open_gate(f"{tag}q", 2)
        complete = await socket.hear_until("complete")
        line.note("WebSocket run: over")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.hear()
        line.note("its socket: 1012")
        assert (complete["payload"]["status"], closed.value.rcvd and closed.value.rcvd.code) == ("shutdown", 1012)
        assert "goaway" in [frame["type"] for frame in socket.heard]
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    line.note("exit code 0")
    print(line)  # noqa: T201 (pytest -s shows it)

    # What could end, did; all others were told.
    for name in ("SSE ends in time", "first in the queue's pool", "queued"):
        assert '"status":"ok"' in ends[name][-1], name
    *_, retry, event_id, event, data = ends["SSE endless"]
    assert (event, event_id.endswith(".end"), '"status":"shutdown"' in data) == ("event: end", True, True)
    assert RETRY_MS // 2 <= int(re.fullmatch(r"retry: (\d+)", retry)[1]) <= RETRY_MS * 3 // 2  # type: ignore[index]
    assert '"status":"shutdown"' in ends["NDJSON endless"][-1]
    answer: httpx.Response = ends["unary"]
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/shutting-down")
    assert ends["grpc"] is grpc.StatusCode.UNAVAILABLE
    for suffix in "enugwb":
        assert "finally" in gateway.journal(f"{tag}{suffix}"), suffix
    assert background

    # And in this order.
    order = ["SIGTERM", "readyz: 503", "a new run begins while those who route hear of it", "goaway", "a new run: 503"]
    order += ["queued: over", "SSE endless: over", "its socket: 1012", "exit code 0"]
    assert [line.at(step) for step in order] == sorted(line.at(step) for step in order)
    assert DELAY_S <= line.at("goaway") < line.at("queued: over") < DELAY_S + TIMEOUT_S <= line.at("SSE endless: over")
    assert line.at("exit code 0") < DELAY_S + TIMEOUT_S + 5
    steps = [entry["step"] for entry in gateway.log_lines() if entry.get("event") == "drain"]
    assert steps == ["leaving", "closing", "ending", "workers"]
    gateway.check_remains()
