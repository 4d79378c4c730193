"""A pool whose workers are fake channels: supervision, health and settling without a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.call import ToolCall
from gateway.errors import Code, GatewayError
from gateway.transport.base import CallStatus
from gateway.workers.catalog import Catalog
from gateway.workers.description import DESCRIBE
from gateway.workers.dialect import PING
from gateway.workers.lease import Lease, LeaseRequest
from gateway.workers.options import PoolOptions
from gateway.workers.pool import Pool
from tests.workers.conftest import FakeChannel, Holder, Sink, until

LOST = CallStatus(Code.UNAVAILABLE, "connection refused", connection_lost=True)


class Network:
    """Addresses and the channel that answers at each."""

    def __init__(self, **channels: FakeChannel) -> None:
        self.channels = channels
        self.dials: list[str] = []

    def connect(self, address: str) -> FakeChannel:
        self.dials.append(address)
        return self.channels[address]


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[Pool]:
    task = asyncio.create_task(pool.run())
    try:
        async with asyncio.timeout(5):
            await pool.started()
        yield pool
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def pool_of(network: Network, **options: object) -> Pool:
    defaults: dict[str, object] = {"kind": "addresses", "addresses": tuple(network.channels), "health_interval_s": 0.02}
    return Pool(PoolOptions("remote", **{**defaults, **options}), network.connect)  # type: ignore[arg-type]


def lease_of(pool: Pool, **request: object) -> Lease:
    lease = pool.acquire(LeaseRequest(**request), Holder())  # type: ignore[arg-type]
    assert isinstance(lease, Lease)
    return lease


async def test_described_addresses_are_ready_with_their_own_concurrency_and_tools() -> None:
    network = Network(a=FakeChannel("a").describes("t", "u", concurrency=3), b=FakeChannel("b").describes("t"))
    async with running(pool_of(network)) as pool:
        await until(lambda: all(worker["state"] == "ready" for worker in pool.snapshot()["workers"]))
        assert pool.readiness() == []
        shown = [(worker["id"], worker["address"], worker["concurrency"]) for worker in pool.snapshot()["workers"]]
        assert shown == [
            ("remote-1", "a", 3),
            ("remote-2", "b", 1),
        ]
        assert repr(pool) == "<Pool remote: 0/4 busy, 0 queued>"
        assert sorted(pool.tools) == ["t", "u"]
        assert pool.tools["t"].parameters == {"type": "object"}
        assert lease_of(pool, tool="u").worker_id == "remote-1"
        assert repr(pool) == "<Pool remote: 1/4 busy, 0 queued>"
    assert all(channel.closed for channel in network.channels.values())


async def test_undescribed_address_has_the_listed_tools_about_which_nothing_is_known() -> None:
    async with running(pool_of(Network(a=FakeChannel("a")), tools=("predict",), concurrency=2)) as pool:
        tool = Catalog([pool]).find("predict")
        assert (tool.pool, tool.parameters, tool.supports_streaming) == ("remote", None, None)
        assert pool.snapshot()["workers"][0]["concurrency"] == 2


async def test_undescribed_address_without_listed_tools_says_what_to_do() -> None:
    async with running(pool_of(Network(a=FakeChannel("a")))) as pool:
        (reason,) = pool.readiness()
        assert "list their names" in reason
        with pytest.raises(GatewayError) as caught:
            Catalog([pool]).find("t")
        assert caught.value.problem == "no-workers-available"


async def test_address_that_refuses_is_dialled_again_until_it_answers() -> None:
    channel = FakeChannel("a")
    channel.answers = {DESCRIBE: LOST, PING: LOST}
    network = Network(a=channel)
    async with running(pool_of(network)) as pool:
        assert "connection refused" in pool.readiness()[0]
        await until(lambda: len(network.dials) >= 3)
        channel.describes("t")
        await until(lambda: pool.readiness() == [])


async def test_address_that_makes_no_sense_is_a_reason_not_a_crash() -> None:
    def refuse(address: str) -> FakeChannel:
        raise ValueError(f"{address!r} is not an address")

    async with running(Pool(PoolOptions("remote", "addresses", addresses=("?",)), refuse)) as pool:
        assert "'?' is not an address" in pool.readiness()[0]


async def test_worker_that_misses_its_checks_is_down_and_comes_back_with_its_tools_kept() -> None:
    channel = FakeChannel("a").describes("t")
    async with running(pool_of(Network(a=channel))) as pool:
        channel.answers = {DESCRIBE: CallStatus(Code.DEADLINE_EXCEEDED)}
        await until(lambda: pool.readiness() != [])
        assert "did not answer in time" in pool.readiness()[0]
        assert Catalog([pool]).find("t").name == "t"
        channel.describes("t", "new")
        await until(lambda: pool.readiness() == [])
        assert Catalog([pool]).find("new").name == "new"
        assert pool.snapshot()["workers"][0]["restarts"] >= 1


async def test_worker_whose_stream_flows_needs_no_probe() -> None:
    channel = FakeChannel("a").describes("t")
    async with running(pool_of(Network(a=channel), health_misses=2)) as pool:
        lease_of(pool).execute(ToolCall("t", {}, 9.0), "r", 9.0, Sink())
        channel.answers = {DESCRIBE: CallStatus(Code.DEADLINE_EXCEEDED)}
        for _ in range(30):
            channel.calls[0].sink.on_messages([b""])
            await asyncio.sleep(0.005)
        assert pool.readiness() == []


async def test_lost_connection_stops_new_leases_at_once_and_a_probe_brings_the_worker_back() -> None:
    channel = FakeChannel("a").describes("t")
    async with running(pool_of(Network(a=channel), health_interval_s=60)) as pool:
        lease_of(pool).execute(ToolCall("t", {}, 9.0), "r", 9.0, sink := Sink())
        channel.calls[0].sink.on_close(LOST)
        assert sink.end.error is not None
        assert sink.end.error.problem == "worker-lost"
        assert pool.readiness() != []
        await until(lambda: pool.readiness() == [])
        assert pool.snapshot()["workers"][0]["restarts"] == 0


async def test_changed_description_is_taken_over_by_a_health_check() -> None:
    channel = FakeChannel("a").describes("t")
    async with running(pool_of(Network(a=channel))) as pool:
        channel.describes("t", "u")
        await until(lambda: "u" in pool.tools)


async def test_cancelled_run_keeps_its_place_until_the_tool_has_stopped() -> None:
    channel = FakeChannel("a").describes("t")
    async with running(pool_of(Network(a=channel))) as pool:
        lease_of(pool).execute(ToolCall("t", {}, 9.0), "r", 9.0, Sink()).cancel()
        channel.calls[0].end(Code.CANCELLED)
        await until(lambda: "r" in channel.stops)
        holder = Holder()
        pool.acquire(LeaseRequest(), holder)
        assert repr(pool) == "<Pool remote: 1/1 busy, 1 queued>"
        assert sum(found.count for found in pool.stops.values()) == 0
        channel.stops["r"].set_result(True)
        await holder.leased.wait()
        assert pool.snapshot()["stuck"] == 0
        assert pool.stops["other"].count == 1


async def test_tool_that_does_not_stop_at_an_address_keeps_its_place_and_is_counted() -> None:
    channel = FakeChannel("a").describes("t")
    async with running(pool_of(Network(a=channel))) as pool:
        lease_of(pool).execute(ToolCall("t", {}, 9.0), "r", 9.0, Sink()).cancel()
        channel.calls[0].end(Code.CANCELLED)
        await until(lambda: "r" in channel.stops)
        channel.stops["r"].set_result(False)
        await until(lambda: pool.snapshot()["stuck"] == 1)
        assert pool.snapshot()["workers"][0]["stuck"] == 1
        assert pool.snapshot()["in_flight"] == 1
        await until(lambda: "r" in channel.stops)
        assert sum(found.count for found in pool.stops.values()) == 0
        channel.stops["r"].set_result(True)
        await until(lambda: pool.snapshot()["in_flight"] == 0)
        assert pool.stops["other"].count == 1


async def test_cancelled_run_on_undescribed_worker_frees_its_place_at_once() -> None:
    channel = FakeChannel("a")
    async with running(pool_of(Network(a=channel), tools=("t",))) as pool:
        lease_of(pool).execute(ToolCall("t", {}, 9.0), "r", 9.0, Sink()).cancel()
        channel.calls[0].end(Code.CANCELLED)
        assert pool.snapshot()["in_flight"] == 0


async def test_drain_waits_for_what_runs_refuses_the_rest_and_returns_at_the_deadline() -> None:
    channel = FakeChannel("a").describes("t")
    async with running(pool_of(Network(a=channel))) as pool:
        lease_of(pool).execute(ToolCall("t", {}, 9.0), "r", 9.0, Sink())
        waiting = Holder()
        pool.acquire(LeaseRequest(), waiting)
        await pool.drain(0.01)
        assert [error.problem for error in waiting.refusals] == ["shutting-down"]
        drained = asyncio.create_task(pool.drain(5))
        await asyncio.sleep(0)
        channel.calls[0].end()
        async with asyncio.timeout(1):
            await drained


async def test_catalog_names_near_matches_and_pools() -> None:
    network = Network(a=FakeChannel("a").describes("train", "predict"))
    async with running(pool_of(network)) as pool:
        catalog = Catalog([pool])
        assert [tool.name for tool in catalog.list()] == ["predict", "train"]
        with pytest.raises(GatewayError, match=r"no tool 'trian'; did you mean 'train'\? there are: predict, train") as caught:
            catalog.find("trian")
        assert caught.value.problem == "tool-not-found"
        with pytest.raises(GatewayError, match="there are: remote") as caught:
            catalog.find("train", "remot")
        assert caught.value.problem == "pool-not-found"


async def test_catalog_prefers_the_first_pool_and_obeys_a_named_one() -> None:
    async with (
        running(pool_of(Network(a=FakeChannel("a").describes("t")))) as first,
        running(Pool(PoolOptions("other", "addresses", addresses=("b",)), Network(b=FakeChannel("b").describes("t")).connect)) as second,
    ):
        catalog = Catalog([first, second])
        assert catalog.find("t").pool == "remote"
        assert catalog.find("t", "other").pool == "other"
        assert len(catalog.list()) == 1
