"""The list of everybody's open runs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.caller import ANONYMOUS
from tests.conftest import FakePool, Running, Serve, until
from tests.endpoints.conftest import NDJSON, SSE, problem

ADMIN = "/v1/admin/runs"


async def listed(running: Running, query: str = "") -> Any:
    response = await running.client.get(f"{ADMIN}{query}")
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store"), response.text
    return response.json()


async def test_an_open_run_is_shown_with_its_readers_and_a_closed_one_is_not(running: Running) -> None:
    async with running.client.stream("GET", "/v1/tools/count/stream?_session=s", headers={**SSE, "X-Request-Id": "req-1"}) as response:
        call = await running.pool.next_call()
        call.send(1, 22)
        lines = response.aiter_lines()
        async for line in lines:
            if line == "data: 22":
                break
        events = f"/v1/runs/{call.run_id}/events?_role=observer&_overflow=latest"
        async with running.client.stream("GET", events, headers=NDJSON):
            document = await listed(running)
            (run,) = document["runs"]
            assert (document["total"], document["cursor"], document["next"]) == (1, None, None)
            for vague in ("age_ms", "queue_ms", "first_chunk_ms", "silent_ms"):
                assert 0 <= run.pop(vague) < 10_000
            assert run.pop("created_at")
            assert run.pop("links")["cancel"] == f"/v1/runs/{call.run_id}/cancel"
            sse, lines_reader = sorted(run.pop("readers"), key=lambda reader: str(reader["format"]), reverse=True)
            assert run == {
                "run": call.run_id,
                "tool": "count",
                "state": "running",
                "session": "s",
                "pool": "default",
                "worker": "w-1",
                "chunks": 2,
                "on_disconnect": "cancel",
                "caller": "anonymous",
                "request_id": "req-1",
                "trace_id": None,
                "bytes": 3,
                "paused": False,
                "reader_count": 2,
            }
            assert sse == {"format": "sse", "role": "subscriber", "overflow": "block", "lag_chunks": 0, "lag_bytes": 0}
            assert (lines_reader["format"], lines_reader["role"], lines_reader["overflow"]) == ("ndjson", "observer", "latest")
        call.end()
        async for _ in lines:
            pass
    assert (await listed(running))["runs"] == []


async def test_a_reader_that_lags_is_seen_to(running: Running) -> None:
    run = running.gateway.hub.open
    response = await running.client.post("/v1/tools/count/runs")
    call = running.pool.calls[0]
    assert response.status_code == 202
    assert run is not None
    reader = running.gateway.hub.get(call.run_id, ANONYMOUS).subscribe(lambda: None, ANONYMOUS)
    call.send(1, 2, 3)
    ((shown,),) = [found["readers"] for found in (await listed(running))["runs"]]
    assert shown["lag_chunks"] == 3
    assert shown["lag_bytes"] == running.gateway.hub.get(call.run_id, ANONYMOUS).log.total_bytes > 0
    reader.close()
    call.end()


async def test_the_list_comes_in_pages_newest_first(running: Running) -> None:
    for _ in range(5):
        await running.client.post("/v1/tools/count/runs")
    ids = sorted((call.run_id for call in running.pool.calls), reverse=True)
    first = await listed(running, "?limit=2&tool=count")
    assert (first["total"], [run["run"] for run in first["runs"]]) == (5, ids[:2])
    second = (await running.client.get(first["next"])).json()
    third = (await running.client.get(second["next"])).json()
    assert [run["run"] for page in (second, third) for run in page["runs"]] == ids[2:]
    assert third["cursor"] is None
    for call in running.pool.calls:
        call.end()


async def test_the_list_is_filtered(serve: Serve) -> None:
    pools = {"default": FakePool(), "other": FakePool("other")}
    async with serve(pools=pools) as running, AsyncExitStack() as stack:
        pools["other"].busy = True
        for path in ("count/stream", "opaque/stream", "count/stream?_pool=other"):
            await stack.enter_async_context(running.client.stream("GET", f"/v1/tools/{path}", headers=SSE))
        await until(lambda: running.open_runs() == 3)

        async def found(query: str) -> list[tuple[str, str, str]]:
            return sorted((run["tool"], run["pool"], run["state"]) for run in (await listed(running, query))["runs"])

        queued = ("count", "other", "queued")
        assert await found("?state=queued") == [queued]
        assert await found("?state=running") == [("count", "default", "running"), ("opaque", "default", "running")]
        assert await found("?tool=count") == [("count", "default", "running"), queued]
        assert await found("?pool=other") == [queued]
        assert len(await found("?caller=anonymous")) == 3
        assert await found("?caller=bob") == []
        ((shown),) = (await listed(running, "?state=queued"))["runs"]
        assert (shown["queue"], shown["silent_ms"], shown["worker"]) == ({"position": 1, "depth": 1}, None, None)


@pytest.mark.parametrize("query", ["?state=ok", "?limit=0", "?limit=101", "?cursor=x", "?nobody=1", "?tool=a&tool=b"])
async def test_a_wrong_parameter_is_named(running: Running, query: str) -> None:
    document = problem(await running.client.get(f"{ADMIN}{query}"), 400, "invalid-option")
    assert query[1:].partition("=")[0] in document["detail"]
