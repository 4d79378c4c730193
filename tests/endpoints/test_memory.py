"""A gateway that is short of memory: what new and old clients hear of it, over real sockets."""

from __future__ import annotations

import asyncio

from gateway.caller import ANONYMOUS
from tests.conftest import Serve, until
from tests.endpoints.conftest import problem, raw
from tests.endpoints.test_websocket import joined

STREAM = "/v1/tools/count/stream"
LIMIT = 1_000_000


async def test_new_runs_are_refused_and_readyz_and_metrics_say_so(serve: Serve) -> None:
    async with serve(memory_limit_bytes=LIMIT) as running, joined(running) as client:
        memory = running.gateway.hub.memory
        memory.sources["test"] = lambda: LIMIT + 1
        memory.look()
        answer = await running.client.get(STREAM)
        problem(answer, 503, "memory-pressure")
        assert 1 <= int(answer.headers["retry-after"]) <= 8
        await client.subscribe("a")
        assert (await client.hear())["payload"]["type"] == "/problems/memory-pressure"
        ready = await running.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["memory"]) == (200, "degraded", "short")
        metrics = (await running.client.get("/metrics")).text
        assert 'gateway_memory_bytes{part="test"} 1.000001e+06' in metrics
        assert "gateway_memory_limit_bytes 1e+06" in metrics
        assert 'gateway_memory_shed_total{what="runs"} 2.0' in metrics
        memory.sources["test"] = lambda: 0
        memory.look()
        assert (await running.client.get("/readyz")).json()["status"] == "ready"


async def test_a_stalled_reader_is_cut_and_others_go_on(serve: Serve) -> None:
    async with serve(memory_limit_bytes=LIMIT, first_byte_hold_s=0) as running:
        memory = running.gateway.hub.memory
        memory.sources["connections"] = running.http.held_bytes
        stalled = await raw(running, "GET", f"{STREAM}?_on_disconnect=continue", receive_buffer_bytes=4096)
        call = await running.pool.next_call()
        await stalled.until(b"event: start")
        reading = await raw(running, "GET", STREAM)
        other = await running.pool.next_call()
        run = running.gateway.hub.get(call.run_id, ANONYMOUS)
        (reader,) = run.readers
        while reader.taken_bytes == run.log.total_bytes:
            call.send("x" * 100_000)
            await asyncio.sleep(0)
        memory.limit_bytes = 100_000
        memory.look()
        assert memory.cut == 1
        await until(lambda: running.http.held_bytes() == 0)
        other.send("still here")
        await reading.until(b"still here")
        assert run.ended is None
        reading.cut()


async def test_bodies_that_are_being_read_are_counted(serve: Serve) -> None:
    async with serve() as running:
        for path in ("/v1/tools/add/call", "/v1/tools/count/runs"):
            stream = await raw(running, "POST", path, Content_Type="application/json", Content_Length="100000")
            stream.writer.write(b"x" * 50_000)
            if path.endswith("call"):
                await until(lambda: running.http.held_bytes() == 50_000)
            stream.cut()
            await until(lambda: running.http.held_bytes() == 0)
