"""Tools, runs, sessions, health, pools, problem pages, and what nobody serves."""

from __future__ import annotations

import asyncio

import pytest

from gateway.caller import ANONYMOUS
from gateway.errors import PROBLEMS
from tests.conftest import FakePool, Running, Serve, until, within
from tests.endpoints.conftest import messages, problem

COUNT = "/v1/tools/count/stream"


# tools


async def test_tools_lists_what_there_is(running: Running) -> None:
    tools = {tool["name"]: tool for tool in (await running.client.get("/v1/tools")).json()["tools"]}
    assert list(tools) == ["add", "count", "opaque", "typed"]
    assert tools["count"]["links"] == {"self": "/v1/tools/count", "stream": "/v1/tools/count/stream"}
    assert tools["add"]["links"] == {"self": "/v1/tools/add", "call": "/v1/tools/add/call"}
    assert set(tools["opaque"]["links"]) == {"self", "stream", "call"}
    assert (tools["opaque"]["supports_streaming"], tools["opaque"]["parameters"]) == (None, None)


async def test_tool_is_described_by_name_and_pool(serve: Serve) -> None:
    async with serve(pools={"a": FakePool("a"), "b": FakePool("b")}) as running:
        assert (await running.client.get("/v1/tools/count")).json()["pool"] == "a"
        assert (await running.client.get("/v1/tools/count", params={"_pool": "b"})).json()["pool"] == "b"
        problem(await running.client.get("/v1/tools/nobody"), 404, "tool-not-found")


# runs


async def test_run_is_described_while_it_lives_and_after(running: Running) -> None:
    async with running.client.stream("GET", COUNT, params={"_session": "s"}) as stream:
        call = await running.pool.next_call()
        call.send(1, 2)
        run = stream.headers["content-location"].removesuffix("/events")
        live = (await running.client.get(run)).json()
        call.end()
        await stream.aread()
    assert (live["state"], live["tool"], live["session"], live["worker"], live["chunks"]) == ("running", "count", "s", "w-1", 2)
    assert live["links"] == {"self": run, "events": f"{run}/events", "result": f"{run}/result", "cancel": f"{run}/cancel"}
    assert (live["pool"], live["on_disconnect"]) == ("default", "cancel")
    ended = (await running.client.get(run)).json()
    assert (ended["state"], ended["end"]["status"], ended["end"]["chunks"]) == ("ok", "ok", 2)


@pytest.mark.parametrize(("method", "suffix"), [("DELETE", ""), ("POST", "/cancel")])
async def test_cancel_ends_the_stream_and_is_idempotent(running: Running, method: str, suffix: str) -> None:
    async with running.client.stream("GET", COUNT) as stream:
        call = await running.pool.next_call()
        call.send(1)
        run = stream.headers["content-location"].removesuffix("/events")
        answers = [await running.client.request(method, run + suffix) for _ in range(2)]
        events = messages(await stream.aread())
    assert call.cancelled.is_set()
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "cancelled")] * 2
    assert (events[-1][0], events[-1][1]["status"]) == ("end", "cancelled")


async def test_cancel_of_a_queued_run_ends_it(running: Running) -> None:
    running.pool.busy = True
    request = asyncio.ensure_future(running.client.get(COUNT))
    ticket = await running.pool.next_ticket()
    (run,) = [each.id for each in (await running.gateway.hub.page(ANONYMOUS, limit=1))[0]]
    await running.client.delete(f"/v1/runs/{run}")
    problem(await within(request), 499, "cancelled")
    assert ticket.cancelled.is_set()


async def test_events_of_a_live_run_are_shared_by_two_readers(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as first:
        call = await running.pool.next_call()
        call.send(1)
        url = first.headers["content-location"]
        async with running.client.stream("GET", url) as second:
            call.send(2)
            call.end()
            texts = [await first.aread(), await second.aread()]
    for text in texts:
        assert ("message", 2) in messages(text)
        assert messages(text)[-1][1]["status"] == "ok"
    assert len(running.pool.calls) == 1


async def test_a_second_reader_keeps_the_run_alive_when_the_first_leaves(running: Running) -> None:
    async with running.client.stream("GET", COUNT) as first:
        call = await running.pool.next_call()
        call.send(1)
        url = first.headers["content-location"]
        run = running.gateway.hub.find_anybodys(url.split("/")[3])
        second = asyncio.ensure_future(running.client.get(url))
        await until(lambda: "2 readers" in repr(run))
    await until(lambda: "1 readers" in repr(run))
    assert not call.cancelled.is_set()
    call.end()
    assert messages((await within(second)).content)[-1][1]["status"] == "ok"


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/cancel")])
async def test_unknown_run_is_404(running: Running, method: str, suffix: str) -> None:
    problem(await running.client.request(method, f"/v1/runs/r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X{suffix}"), 404, "run-not-found")


# sessions


async def test_session_is_created_looked_at_and_ended(running: Running) -> None:
    created = await running.client.post("/v1/sessions", json={"id": "s-1", "metadata": {"k": "v"}})
    assert (created.status_code, created.headers["location"]) == (201, "/v1/sessions/s-1")
    assert (created.json()["id"], created.json()["metadata"]) == ("s-1", {"k": "v"})
    assert (await running.client.post("/v1/sessions", json={"id": "s-1"})).status_code == 200
    assert (await running.client.get("/v1/sessions/s-1")).json() == created.json() | {
        "last_used_at": (await running.client.get("/v1/sessions/s-1")).json()["last_used_at"]
    }
    assert (await running.client.delete("/v1/sessions/s-1")).status_code == 204
    assert running.pool.forgotten == ["s-1"]
    problem(await running.client.get("/v1/sessions/s-1"), 404, "session-not-found")
    problem(await running.client.delete("/v1/sessions/s-1"), 404, "session-not-found")


async def test_session_without_an_id_gets_one(running: Running) -> None:
    created = await running.client.post("/v1/sessions")
    assert created.status_code == 201
    assert created.headers["location"] == f"/v1/sessions/{created.json()['id']}"


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b'{"id":"a b"}', "invalid-session"),
        (b'{"name":"x"}', "invalid-body"),
        (b'{"id":5}', "invalid-body"),
        (b'{"metadata":{"k":5}}', "invalid-body"),
        (b"[]", "invalid-body"),
        (b"\xff", "invalid-body"),
    ],
)
async def test_session_that_cannot_be_is_400(running: Running, body: bytes, slug: str) -> None:
    response = await running.client.post("/v1/sessions", content=body, headers={"Content-Type": "application/json"})
    problem(response, 400, slug)
    assert len(running.gateway.sessions) == 0


async def test_session_begins_with_its_first_use(running: Running) -> None:
    running.pool.script = lambda call: call.end()
    await running.client.get(COUNT, params={"_session": "used"})
    assert (await running.client.get("/v1/sessions/used")).status_code == 200


# health and pools


async def test_livez_is_ok_even_when_nothing_is_ready(serve: Serve) -> None:
    pool = FakePool()
    pool.reasons = ["pool default: worker 1 is starting"]
    async with serve(pools={"default": pool}) as running:
        assert (await running.client.get("/livez")).json() == {"status": "ok"}


async def test_readyz_says_why_a_pool_is_not_ready(serve: Serve) -> None:
    broken = FakePool("b")
    async with serve(pools={"a": FakePool("a"), "b": broken}) as running:
        ready = await running.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "pools": {"a": [], "b": []}})
        broken.reasons = ["pool b: ModuleNotFoundError: torch"]
        degraded = await running.client.get("/readyz")
        assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
        assert degraded.json()["pools"] == {"a": [], "b": ["pool b: ModuleNotFoundError: torch"]}
        running.gateway.pools["a"].reasons = ["pool a: worker a-1 is starting"]  # type: ignore[attr-defined]
        lost = await running.client.get("/readyz")
        assert (lost.status_code, lost.json()["status"]) == (503, "not ready")


async def test_readyz_while_draining_is_503(running: Running) -> None:
    await running.gateway.drain_runs()
    response = await running.client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "draining", "open_runs": 0})
    assert (await running.client.get("/livez")).status_code == 200


async def test_pools_shows_every_worker(running: Running) -> None:
    (pool,) = (await running.client.get("/v1/pools")).json()["pools"]
    assert {"name", "kind", "queued", "in_flight", "workers"} <= set(pool)
    assert set(pool["workers"][0]) == {"id", "state", "in_flight", "concurrency", "restarts", "address"}


# problems


async def test_every_problem_type_leads_to_a_page(running: Running) -> None:
    for slug, row in PROBLEMS.items():
        page = (await running.client.get(f"/problems/{slug}")).json()
        assert (page["type"], page["title"], page["code"]) == (f"/problems/{slug}", row.title, row.code.name)
    problem(await running.client.get("/problems/nonsense"), 404, "route-not-found")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/tools/", "/v1/tools/count/stream/", "/v2/tools"])
async def test_a_path_that_nobody_serves_is_a_404_problem(running: Running, path: str) -> None:
    problem(await running.client.get(path), 404, "route-not-found")


@pytest.mark.parametrize(("method", "path"), [("PUT", COUNT), ("GET", "/v1/tools/add/call"), ("POST", "/livez"), ("DELETE", "/v1/tools")])
async def test_a_method_that_a_path_has_not_is_a_405_problem(running: Running, method: str, path: str) -> None:
    response = await running.client.request(method, path)
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"]


async def test_an_unexpected_error_is_a_500_problem_without_its_text(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(FakePool, "snapshot", broken)
    response = await running.client.get("/v1/pools")
    problem(response, 500, "internal")
    assert "secret" not in response.text
