from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.call import ToolCall
from gateway.errors import GatewayError
from gateway.runs.hub import Hub, HubLimits
from gateway.runs.policy import Cause
from gateway.workers.catalog import Catalog
from gateway.workers.description import Tool
from tests.conftest import FakePool


def hub_of(*pools: FakePool, **limits: Any) -> Hub:
    catalog = Catalog(list(pools))  # type: ignore[arg-type]
    return Hub(catalog, {pool.name: pool for pool in pools}, HubLimits(**limits))  # type: ignore[misc]


def call(tool: str = "count", arguments: dict[str, Any] | None = None, **options: Any) -> ToolCall:
    return ToolCall(tool, arguments or {}, 60.0, **options)


@pytest.fixture
async def pool() -> FakePool:
    return FakePool()


@pytest.fixture
def hub(pool: FakePool) -> Hub:
    return hub_of(pool)


def problem_of(hub: Hub, wanted: ToolCall) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        hub.open(wanted)
    assert hub.open_runs == 0
    return caught.value


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (call("nobody"), "tool-not-found"),
        (call(pool="elsewhere"), "pool-not-found"),
        (call("add", {"a": 1, "b": 2}), "tool-not-streaming"),
        (call("count", streaming=False), "tool-streams"),
        (call("count", {"count": "three"}), "invalid-arguments"),
        # the kind is looked at before the arguments, the tool before both
        (call("add", {}), "tool-not-streaming"),
        (call("nobody", {"x": 1}, streaming=False), "tool-not-found"),
    ],
)
async def test_open_refuses_before_any_worker_is_asked(hub: Hub, pool: FakePool, wanted: ToolCall, problem: str) -> None:
    assert problem_of(hub, wanted).problem == problem
    assert pool.requests == []


async def test_open_while_draining_comes_before_every_other_check(hub: Hub) -> None:
    await hub.drain(0)
    error = problem_of(hub, call("nobody"))
    assert error.problem == "shutting-down"
    # Jittered, so that those who are refused now don't come back all at once.
    waits = {problem_of(hub, call("nobody")).retry_after_s for _ in range(20)}
    assert len(waits) > 1
    assert all(2.5 <= wait <= 7.5 for wait in waits if wait is not None)


async def test_open_says_what_snakepit_says_of_a_tool_that_does_not_stream(hub: Hub) -> None:
    assert problem_of(hub, call("add")).detail == (
        "Streaming execution is not enabled for tool add. "
        "Enable streaming support on the adapter (supports_streaming: true) or use ExecuteTool instead."
    )


async def test_open_with_a_tool_of_unknown_kind_takes_either(hub: Hub) -> None:
    hub.open(call("opaque", {"what": ["ever"]}, streaming=True))
    hub.open(call("opaque", {"what": ["ever"]}, streaming=False))
    assert hub.open_runs == 2


async def test_open_with_raw_bytes_leaves_the_check_to_the_worker(hub: Hub) -> None:
    hub.open(call("count", {}, binary={"count": b"\x01"}))
    assert hub.open_runs == 1


async def test_open_beyond_the_limit_is_refused_until_one_ends(pool: FakePool) -> None:
    hub = hub_of(pool, open_runs=2)
    first, _ = hub.open(call()), hub.open(call())
    with pytest.raises(GatewayError) as caught:
        hub.open(call())
    assert (caught.value.problem, caught.value.http_status, caught.value.retry_after_s) == ("too-many-streams", 429, 1)
    first.cancel(Cause.CLIENT)
    hub.open(call())


async def test_open_that_the_pool_refuses_leaves_nothing_behind(hub: Hub, pool: FakePool) -> None:
    pool.refusal = GatewayError("pool-saturated", "full", retry_after_s=3)
    assert problem_of(hub, call()) is pool.refusal
    await asyncio.wait_for(hub.drain(5), 1)


async def test_open_uses_the_named_pool_else_the_first_that_has_the_tool() -> None:
    a, b = FakePool("a"), FakePool("b")
    del a.tools["count"]
    hub = hub_of(a, b)
    hub.open(call("count"))
    hub.open(call("opaque"))
    hub.open(call("opaque", pool="b"))
    assert ([c.call.tool for c in a.calls], [c.call.tool for c in b.calls]) == (["opaque"], ["count", "opaque"])


async def test_a_worker_that_changes_its_schema_changes_the_check(hub: Hub, pool: FakePool) -> None:
    hub.open(call("count", {"count": 1}))
    schema = {"type": "object", "properties": {"upto": {"type": "integer"}}, "additionalProperties": False}
    pool.tools["count"] = Tool("count", pool.name, "", True, schema)
    hub.open(call("count", {"upto": 1}))
    with pytest.raises(GatewayError, match="does not take these arguments"):
        hub.open(call("count", {"count": 1}))


async def test_find_knows_live_runs_and_lately_ended_ones(pool: FakePool) -> None:
    hub = hub_of(pool, kept_runs=2)
    runs = [hub.open(call()) for _ in range(4)]
    for run in runs[:3]:
        run.cancel(Cause.CLIENT)
    assert [hub.find_anybodys(run.id) for run in runs] == [None, *runs[1:]]
    assert hub.open_runs == 1
    assert hub.find_anybodys("r_nobody") is None


async def test_run_ids_differ_and_sort_by_time(hub: Hub) -> None:
    ids = [hub.open(call()).id for _ in range(3)]
    assert len(set(ids)) == 3
    assert sorted(id_[:12] for id_ in ids) == [id_[:12] for id_ in ids]


async def test_drain_waits_for_open_runs(hub: Hub, pool: FakePool) -> None:
    run = hub.open(call())
    async with asyncio.TaskGroup() as tasks:
        drain = tasks.create_task(hub.drain(10))
        await asyncio.sleep(0)
        assert hub.draining
        assert not drain.done()
        pool.calls[0].end()
    assert run.state == "ok"


async def test_drain_ends_what_is_left_as_shutdown(hub: Hub, pool: FakePool) -> None:
    pool.busy = True
    queued = hub.open(call())
    pool.busy = False
    running = hub.open(call())
    await hub.drain(0)
    assert (queued.state, running.state, hub.open_runs) == ("shutdown", "shutdown", 0)
    assert pool.tickets[0].cancelled.is_set()
    assert pool.calls[0].cancelled.is_set()


async def test_a_run_is_remembered_with_why_it_was_ended(hub: Hub, pool: FakePool) -> None:
    cancelled, failed = hub.open(call()), hub.open(call())
    cancelled.cancel(Cause.CLIENT)
    pool.calls[1].fail()
    assert [hub.cause_of(run_id) for run_id in (cancelled.id, failed.id, "r_unknown")] == ["client", "other", "other"]
