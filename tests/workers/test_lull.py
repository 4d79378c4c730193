"""Calls to workers that must always be read: what is taken for a slow reader, and when the call is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.call import ToolCall
from gateway.errors import Code
from gateway.rpc.snakepit_bridge_pb2 import ToolChunk
from gateway.workers import lull
from gateway.workers.description import Description, Tool
from gateway.workers.dialect import Dialect
from gateway.workers.options import PoolOptions
from gateway.workers.toolstream import ToolStream
from gateway.workers.worker import Worker, WorkerState
from tests.workers.conftest import FakeChannel, Sink, until


class Fragile(Dialect):
    """Speaks to workers that break when they are made to wait."""

    stall_limit_bytes = 1000

    def is_worn_out(self, threads_lost: int) -> bool:
        return threads_lost >= 2


class Execution:
    def __init__(self, dialect: Callable[[PoolOptions, str], Dialect] = Fragile) -> None:
        channel = FakeChannel()
        self.worker = Worker("p-1", dialect(PoolOptions("p", "addresses", addresses=("a:1",)), "p-1"))
        self.worker.enter_service(channel, Description(1, {"t": Tool("t", "p")}))
        self.sink = Sink()
        self.stream = ToolStream(self.worker, ToolCall("t", {}, 30.0), "run-1", 30.0, self.sink, lambda worker, run_id: None).open([])
        (self.call,) = channel.calls

    def send(self, size: int, count: int = 1) -> None:
        chunk = ToolChunk(chunk_id="t-1", data=b'"' + b"x" * size + b'"').SerializeToString()
        self.call.sink.on_messages([chunk] * count)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lull, "LOOK_S", 0.002)


async def test_slow_reader_never_pauses_the_call_and_what_fits_is_delivered() -> None:
    execution = Execution()
    execution.stream.pause_reading()
    execution.send(400, 2)
    assert not execution.call.paused
    execution.stream.resume_reading()
    execution.stream.pause_reading()
    # Counted anew: the reader had caught up.
    execution.send(400, 2)
    await asyncio.sleep(0.01)
    assert (len(execution.sink.payloads), execution.call.cancelled) == (4, False)


async def test_too_much_for_a_slow_reader_ends_the_call_with_the_reason() -> None:
    execution = Execution()
    execution.stream.pause_reading()
    execution.send(400, 3)
    await until(lambda: execution.call.cancelled)
    execution.call.end(Code.CANCELLED)
    error = execution.sink.end.error
    assert error is not None
    assert (error.problem, len(execution.sink.payloads)) == ("slow-reader", 3)
    assert "stall_limit_bytes is 1000" in error.detail


async def test_cancelled_call_is_read_on_for_nothing_until_little_comes() -> None:
    execution = Execution()
    execution.stream.cancel()
    for _ in range(3):
        execution.send(10, lull.FEW_MESSAGES)
        await asyncio.sleep(0.0025)
    assert execution.sink.payloads == []
    await until(lambda: execution.call.cancelled)
    execution.call.end(Code.CANCELLED)
    assert (execution.sink.end.cancelled, execution.worker.threads_lost) == (True, 0)


async def test_call_that_is_quiet_is_ended_after_one_look() -> None:
    execution = Execution()
    execution.stream.cancel()
    execution.stream.cancel()
    assert not execution.call.cancelled
    await until(lambda: execution.call.cancelled, 1)


async def test_call_that_never_pauses_is_ended_all_the_same_and_counted() -> None:
    for lost in (1, 2):
        execution = Execution()
        execution.worker.threads_lost = lost - 1
        execution.stream.cancel()
        while not execution.call.cancelled:
            execution.send(10, lull.FEW_MESSAGES)
            await asyncio.sleep(0.0005)
        execution.call.end(Code.CANCELLED)
        assert execution.worker.threads_lost == lost
        # It has two to spare.
        assert execution.worker.state is (WorkerState.READY if lost == 1 else WorkerState.DRAINING)


async def test_call_that_ends_by_itself_meanwhile_leaves_no_timer() -> None:
    execution = Execution()
    execution.stream.cancel()
    execution.call.end()
    await asyncio.sleep(0.01)
    assert not execution.call.cancelled
    assert execution.sink.end.error is None


async def test_worker_elsewhere_is_never_replaced() -> None:
    class Elsewhere(Fragile):
        def is_worn_out(self, threads_lost: int) -> bool:
            return False

    execution = Execution(Elsewhere)
    for _ in range(100):
        execution.worker.lost_thread()
    assert execution.worker.state is WorkerState.READY


async def test_workers_deadline_comes_after_the_runs() -> None:
    assert Execution().call.timeout_s == 31.0
    assert Execution(Dialect).call.timeout_s == 30.0


async def test_other_workers_are_paused_and_cancelled_at_once() -> None:
    execution = Execution(Dialect)
    execution.stream.pause_reading()
    assert execution.call.paused
    execution.stream.cancel()
    assert execution.call.cancelled
