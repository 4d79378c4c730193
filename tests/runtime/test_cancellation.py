"""What happens to a tool when its caller goes: cancel, deadline, worker shutdown; and the order of an execution's life."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from gateway.rpc import worker_pb2 as worker
from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.failure import Draining
from gateway.runtime.tool import tool

from .conftest import Serve, eventually, request, until_end

where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="unset")


class Journal:
    """What happened in which order, in which thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.threads: dict[str, int] = {}
        self.release = threading.Event()

    def note(self, line: str) -> None:
        self.lines.append(line)
        self.threads[line] = threading.get_ident()


def adapters(journal: Journal) -> dict[str, type[BaseAdapter]]:
    """Adapters that write to the journal: sync and async hooks around the same tools."""

    class Tools(BaseAdapter):
        @tool(supports_streaming=True)
        def endless(self, interval_s: float = 0.005) -> Iterator[Any]:
            journal.note("body")
            try:
                while True:
                    yield "x" * 1000
                    time.sleep(interval_s)
            finally:
                journal.note("finally")

        @tool(supports_streaming=True)
        def silent(self) -> Iterator[Any]:
            journal.note("body")
            while not self.cancelled:
                time.sleep(0.002)
            journal.note("saw cancelled")
            yield 1

        @tool(supports_streaming=True)
        def deaf(self) -> Iterator[Any]:
            journal.note("body")
            journal.release.wait(20)
            yield 1

        @tool(supports_streaming=True)
        async def endless_async(self, interval_s: float = 0.005) -> AsyncIterator[Any]:
            journal.note("body")
            try:
                while True:
                    yield "x" * 1000
                    if interval_s > 1:
                        journal.note("waits")
                    await asyncio.sleep(interval_s)
            except asyncio.CancelledError:
                journal.note("cancelled error")
                raise
            finally:
                journal.note("finally")
                await asyncio.sleep(0)
                journal.note("finally after await")

        @tool(supports_streaming=True)
        async def hot_async(self) -> AsyncIterator[Any]:
            """Is suspended in its yield when the cancellation comes: the buffer is full."""
            journal.note("body")
            try:
                while True:
                    yield "x" * 100_000
            finally:
                journal.note("finally")

        @tool(supports_streaming=True)
        async def stubborn_async(self) -> AsyncIterator[Any]:
            journal.note("body")
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    journal.note("swallowed")
                    yield 1
                    journal.note("unreachable")

        @tool()
        async def wait_async(self) -> None:
            journal.note("body")
            await asyncio.sleep(60)

        @tool()
        def wait(self) -> float | None:
            journal.note("body")
            while not self.cancelled:
                time.sleep(0.002)
            journal.note("saw cancelled")
            return self.deadline

        @tool(supports_streaming=True)
        def three(self) -> Iterator[Any]:
            journal.note("body")
            try:
                yield from range(3)
            finally:
                journal.note("finally")

        @tool(supports_streaming=True)
        def fails(self) -> Iterator[Any]:
            journal.note("body")
            yield 1
            raise ValueError("boom")

        @tool()
        def left(self) -> float | None:
            return self.deadline

        @tool()
        async def context(self) -> list[Any]:
            assert self.session_context is not None
            return [self.session_id, self.session_context.request_metadata, self.cancelled, where.get()]

        @tool()
        def sync_context(self) -> str:
            return where.get()

    class Sync(Tools):
        def initialize(self) -> None:
            journal.note("initialize")
            where.set("initialized")

        def cleanup(self) -> None:
            journal.note("cleanup")

    class Async(Tools):
        async def initialize(self) -> None:
            await asyncio.sleep(0)
            journal.note("initialize")
            where.set("initialized")

        async def cleanup(self) -> None:
            await asyncio.sleep(0.01)
            journal.note("cleanup")

    class BadHooks(Tools):
        def initialize(self) -> None:
            journal.note("initialize")
            raise PermissionError("no licence")

        def cleanup(self) -> None:
            journal.note("cleanup")
            raise SystemExit(1)

    class Slow(Tools):
        async def initialize(self) -> None:
            journal.note("initialize")
            await asyncio.sleep(60)

        def cleanup(self) -> None:
            journal.note("cleanup")

    return {"sync": Sync, "async": Async, "bad": BadHooks, "slow": Slow}


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal()
    yield journal
    journal.release.set()


async def started(journal: Journal, line: str = "body") -> None:
    """Wait until the tool has come to this line."""
    await eventually(lambda: line in journal.lines)


@pytest.mark.parametrize("hooks", ["sync", "async"])
@pytest.mark.parametrize("name", ["three"])
async def test_sync_life_runs_in_order_and_sync_parts_on_one_thread(serve: Serve, journal: Journal, hooks: str, name: str) -> None:
    client = await serve(adapters(journal)[hooks])
    assert await client.values(name) == [0, 1, 2]
    assert journal.lines == ["initialize", "body", "finally", "cleanup"]
    assert journal.threads["body"] == journal.threads["finally"] != threading.get_ident()
    if hooks == "sync":
        assert len(set(journal.threads.values())) == 1


@pytest.mark.parametrize("hooks", ["sync", "async"])
@pytest.mark.parametrize("name", ["endless", "endless_async", "hot_async", "silent", "stubborn_async"])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_stream_that_loses_its_reader_is_closed_then_cleaned_up_once(
    serve: Serve, journal: Journal, hooks: str, name: str, how: str
) -> None:
    client = await serve(adapters(journal)[hooks])
    call = client.stream(name, run_id="r1", timeout=0.3 if how == "deadline" else 20)
    reader = asyncio.ensure_future(call.read())
    await started(journal)
    if how == "cancel":
        call.cancel()
    await asyncio.wait([reader])
    await until_end(call)
    if how == "deadline":
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await client.stopped("r1")
    expected = {
        "endless": ["finally"],
        "endless_async": ["finally", "finally after await"],
        "hot_async": ["finally"],
        "silent": ["saw cancelled"],
        "stubborn_async": ["swallowed"],
    }[name]
    # Cancelled in its await or closed in its yield, as it happens to be.
    assert [line for line in journal.lines if line != "cancelled error"] == ["initialize", "body", *expected, "cleanup"]


async def test_generator_that_somebody_else_holds_is_closed_all_the_same(serve: Serve) -> None:
    lines: list[str] = []
    held: list[Any] = []

    class Tools(BaseAdapter):
        @tool(supports_streaming=True)
        def stream(self) -> Iterator[Any]:
            held.append(self.endless())
            return held[0]  # type: ignore[no-any-return]

        def endless(self) -> Iterator[Any]:
            try:
                while True:
                    yield 1
            finally:
                lines.append("finally")

        def cleanup(self) -> None:
            lines.append("cleanup")

    client = await serve(Tools)
    call = client.stream("stream", run_id="r1")
    await call.read()
    call.cancel()
    assert await client.stopped("r1")
    assert lines == ["finally", "cleanup"]


async def test_async_tool_is_stopped_within_50_ms_of_the_cancel(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"])
    call = client.stream("endless_async", interval_s=30)
    await call.read()
    await started(journal, "waits")
    begin = time.monotonic()
    call.cancel()
    await eventually(lambda: "cleanup" in journal.lines)
    assert "cancelled error" in journal.lines
    assert time.monotonic() - begin < 0.5  # 50 ms on a quiet machine


@pytest.mark.parametrize("name", ["wait", "wait_async"])
async def test_unary_call_that_is_cancelled_stops_its_tool(serve: Serve, journal: Journal, name: str) -> None:
    client = await serve(adapters(journal)["sync"])
    call = client.bridge.ExecuteTool(request(name), metadata=(("x-gateway-run-id", "u1"),))
    sent = asyncio.ensure_future(call.wait_for_connection())
    await started(journal)
    call.cancel()
    assert await client.stopped("u1")
    assert journal.lines[-1] == "cleanup"
    await asyncio.wait([sent])


async def test_tool_without_cleanup_needed_is_cleaned_up_after_an_error(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"])
    await client.failure("fails")
    assert journal.lines == ["initialize", "body", "cleanup"]


async def test_failing_initialize_fails_the_call_and_failing_cleanup_does_not_matter(
    serve: Serve, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(adapters(journal)["bad"])
    _, status, detail = await client.failure("three")
    assert status is grpc.StatusCode.PERMISSION_DENIED
    assert detail["message"] == "no licence"
    assert journal.lines == ["initialize", "cleanup"]
    assert "cleanup() after tool three failed" in caplog.text
    assert len(client.executor) == 0


async def test_cancel_during_initialize_skips_the_tool_and_cleans_up(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["slow"])
    call = client.stream("three", run_id="r1")
    reader = asyncio.ensure_future(call.read())
    await started(journal, "initialize")
    call.cancel()
    assert await client.stopped("r1")
    assert journal.lines == ["initialize", "cleanup"]
    await asyncio.wait([reader])


async def test_call_waits_for_a_place_and_its_wait_can_be_cancelled(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"], concurrency=1)
    first = client.stream("silent")
    reading = asyncio.ensure_future(first.read())
    await started(journal)
    second = client.stream("three", run_id="second")
    waiting = asyncio.ensure_future(second.read())
    await eventually(lambda: len(client.executor) == 2)
    second.cancel()
    assert await client.stopped("second")
    third = asyncio.ensure_future(client.values("three"))
    await eventually(lambda: len(client.executor) == 2)
    first.cancel()
    assert await third == [0, 1, 2]
    assert journal.lines.count("initialize") == 2
    await asyncio.wait([reading, waiting])


async def test_tool_that_does_not_stop_is_logged_counted_and_reported(
    serve: Serve, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(adapters(journal)["sync"], stop_timeout_s=0.05)
    call = client.stream("deaf", run_id="r1")
    reader = asyncio.ensure_future(call.read())
    await started(journal)
    call.cancel()
    assert await client.stopped("r1", timeout_s=0) is False
    await eventually(lambda: client.executor.stuck == 1)
    assert "tool deaf (run r1) has not stopped 0.05 s after its cancellation" in caplog.text
    journal.release.set()
    assert await client.stopped("r1") is True
    assert journal.lines[-1] == "cleanup"
    await asyncio.wait([reader])


async def test_await_stop_of_an_unknown_run_answers_at_once(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"])
    assert await client.stopped("never seen", timeout_s=60) is True


async def test_ok_status_comes_after_cleanup_so_that_the_worker_is_free(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["async"])
    await client.values("three")
    assert journal.lines[-1] == "cleanup"
    assert len(client.executor) == 0


async def test_drain_refuses_new_calls_and_cancel_all_tells_the_readers(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"])
    call = client.stream("endless")
    await call.read()
    assert await client.executor.drain(0.01) is False
    _, status, _ = await client.failure("three")
    assert status is grpc.StatusCode.UNAVAILABLE
    client.executor.cancel_all(Draining("the worker is shutting down"))
    await until_end(call)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert json.loads(await call.details())["message"] == "the worker is shutting down"
    assert await client.executor.drain(5) is True
    assert journal.lines[-1] == "cleanup"


async def test_deadline_is_told_in_seconds_and_none_without_one(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"])
    assert json.loads((await client.bridge.ExecuteTool(request("left"))).result.value) is None
    left = json.loads((await client.bridge.ExecuteTool(request("left"), timeout=7)).result.value)
    assert 5 < left < 7.1  # grpc-timeout is rounded up


@pytest.mark.parametrize("hooks", ["sync", "async"])
async def test_sync_tool_sees_the_context_variables_of_its_initialize(serve: Serve, journal: Journal, hooks: str) -> None:
    client = await serve(adapters(journal)[hooks])
    assert await client.result("sync_context") == "initialized"


async def test_tool_sees_session_metadata_and_context_variables(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["async"])
    call = request("context", "s9")
    call.metadata["k"] = "v"
    response = await client.bridge.ExecuteTool(call)
    assert json.loads(response.result.value) == ["s9", {"k": "v"}, False, "initialized"]


@pytest.mark.parametrize("name", ["endless", "endless_async"])
async def test_hundred_cancels_leave_no_execution_thread_or_task(serve: Serve, journal: Journal, name: str) -> None:
    client = await serve(adapters(journal)["sync"], concurrency=2)
    idle = 2
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    for _ in range(100):
        call = client.stream(name)
        await call.read()
        call.cancel()
    await eventually(lambda: len(client.executor) == 0)
    assert journal.lines.count("cleanup") == 100
    await eventually(lambda: threading.active_count() <= threads + idle)
    del call
    gc.collect()
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 2)


async def test_idle_thread_serves_the_next_execution_with_fresh_context_variables(serve: Serve) -> None:
    class Tools(BaseAdapter):
        @tool()
        def look(self) -> list[Any]:
            before = where.get()
            where.set("used")
            return [before, threading.get_ident()]

    client = await serve(Tools)
    first, second = [await client.result("look") for _ in range(2)]
    assert first == second
    assert first[0] == "unset"


async def test_client_that_vanishes_stops_the_tool(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"])
    call = client.stream("endless")
    await call.read()
    await client.channel.close()
    await eventually(lambda: "cleanup" in journal.lines)


async def test_batches_are_cancelled_as_single_chunks_are(serve: Serve, journal: Journal) -> None:
    client = await serve(adapters(journal)["sync"])
    call = client.worker.StreamTool(request("endless"))
    assert isinstance(await call.read(), worker.ToolChunks)
    call.cancel()
    await eventually(lambda: "cleanup" in journal.lines)


async def test_adapter_without_super_init_or_base_class_works(serve: Serve) -> None:
    seen: list[Any] = []

    class OwnInit(BaseAdapter):
        def __init__(self) -> None:
            self.deadline = 5  # type: ignore[assignment]  # a name of the base class, taken over

        @tool()
        def look(self) -> list[Any]:
            return [self.deadline, self.session_id, self.cancelled]

    class NoBase:
        def cleanup(self) -> None:
            seen.append("cleanup")

        @tool()
        def look(self) -> str:
            return "plain"

    assert await (await serve(OwnInit)).result("look") == [5, "", False]
    assert await (await serve(NoBase)).result("look") == "plain"
    assert seen == ["cleanup"]


async def test_new_adapter_instance_serves_each_request(serve: Serve) -> None:
    class Counting(BaseAdapter):
        def __init__(self) -> None:
            self.calls = 0

        @tool()
        def call(self) -> int:
            self.calls += 1
            return self.calls

    client = await serve(Counting)
    assert [await client.result("call") for _ in range(3)] == [1, 1, 1]


async def test_log_of_a_failure_while_cancelled_tells_nobody_but_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    class Angry(BaseAdapter):
        @tool(supports_streaming=True)
        async def stream(self) -> AsyncIterator[Any]:
            begun.set()
            try:
                await asyncio.sleep(60)
                yield 1
            except asyncio.CancelledError:
                raise RuntimeError("on the way out") from None

    caplog.set_level(logging.INFO)
    client = await serve(Angry)
    call = client.stream("stream")
    reader = asyncio.ensure_future(call.read())
    await begun.wait()
    call.cancel()
    await eventually(lambda: "while it was being cancelled" in caplog.text)
    await asyncio.wait([reader])
