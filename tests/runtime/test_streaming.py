"""Streaming tools over real gRPC: chunks, the final one, order and completeness, errors, backpressure."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import grpc
import numpy as np
import pytest

from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.chunk import Marked, StreamChunk
from gateway.runtime.failure import ToolError
from gateway.runtime.tool import tool
from gateway.runtime.wire import Numbering

from .conftest import Serve, eventually, request, until_end


class Duck:
    """What the real Snakepit package's chunk looks like: no metadata."""

    def __init__(self, data: Any, is_final: bool) -> None:
        self.data = data
        self.is_final = is_final


class Tools(BaseAdapter):
    produced: ClassVar[int] = 0

    @tool(supports_streaming=True)
    def count(self, n: int) -> Iterator[Any]:
        for i in range(n):
            yield {"i": i}

    @tool(supports_streaming=True)
    async def count_async(self, n: int) -> AsyncIterator[Any]:
        for i in range(n):
            yield {"i": i}

    @tool(supports_streaming=True)
    def shapes(self) -> Iterator[Any]:
        yield "text"
        yield None
        yield np.array([1.5, 2.5])
        yield np.float32(0.5)
        yield {"data": 1, "is_final": True, "metadata": {}}
        yield StreamChunk({"a": 1}, metadata={"k": 1, 2: True})
        yield b"\x00"

    @tool(supports_streaming=True)
    def finals(self, marks: list[bool], fail: bool = False, duck: bool = False) -> Iterator[Any]:
        for i, mark in enumerate(marks):
            yield Duck(i, mark) if duck else StreamChunk(i, mark, {"n": i})
        if fail:
            raise ValueError("after the last")

    @tool(supports_streaming=True)
    async def finals_async(self, marks: list[bool]) -> AsyncIterator[Any]:
        for i, mark in enumerate(marks):
            yield StreamChunk(i, mark)

    @tool(supports_streaming=True)
    def fails(self, after: int, kind: str) -> Iterator[Any]:
        yield from range(after)
        raise {
            "value": ValueError("bad"),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "generator_exit": GeneratorExit(),
            "base": BaseException("odd"),
            "stop": StopIteration(1),
            "own": ToolError("FAILED_PRECONDITION", "not yet", {"retry": True}),
            "long": RuntimeError("x" * 100_000),
            "cancelled": asyncio.CancelledError(),
        }[kind]

    @tool(supports_streaming=True)
    async def fails_async(self, after: int, kind: str) -> AsyncIterator[Any]:
        for item in self.fails(after, kind):
            await asyncio.sleep(0)
            yield item

    @tool(supports_streaming=True)
    def unserialisable(self, after: int) -> Iterator[Any]:
        yield from range(after)
        yield {"model": {"layers": [1, threading.Lock()]}}

    @tool(supports_streaming=True)
    def returns_list(self) -> list[int]:
        return [1, 2]

    @tool(supports_streaming=True)
    def returns_generator(self) -> Iterator[Any]:
        return (i for i in range(3))

    @tool(supports_streaming=True)
    async def awaits_generator(self) -> AsyncIterator[Any]:
        return self.count_async(3)

    @tool()
    def yields_unmarked(self) -> Iterator[Any]:
        yield 1

    @tool()
    def add(self, a: int, b: int) -> int:
        return a + b

    @tool(supports_streaming=True)
    def big(self, n: int, size: int) -> Iterator[Any]:
        for _ in range(n):
            Tools.produced += 1
            yield "x" * size

    @tool(supports_streaming=True)
    async def big_async(self, n: int, size: int) -> AsyncIterator[Any]:
        for _ in range(n):
            Tools.produced += 1
            yield "x" * size

    @tool(supports_streaming=True)
    def paced(self, n: int) -> Iterator[Any]:
        for _ in range(n):
            yield time.monotonic()
            time.sleep(0.02)

    @tool(supports_streaming=True)
    async def busy(self) -> AsyncIterator[Any]:
        """Never really waits."""
        for _ in range(5):
            yield time.monotonic()
            time.sleep(0.05)  # noqa: ASYNC251


async def test_chunks_arrive_in_order_with_ids_and_an_empty_final(serve: Serve) -> None:
    client = await serve(Tools)
    chunks = await client.chunks("count", n=3)
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [
        ("count-1", b'{"i":0}', False),
        ("count-2", b'{"i":1}', False),
        ("count-3", b'{"i":2}', False),
        ("count-4", b"", True),
    ]


async def test_empty_generator_sends_one_final_chunk(serve: Serve) -> None:
    client = await serve(Tools)
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in await client.chunks("count", n=0)] == [("count-1", b"", True)]


async def test_values_of_all_shapes_are_json_and_only_chunks_are_unwrapped(serve: Serve) -> None:
    client = await serve(Tools)
    chunks = await client.chunks("shapes")
    assert [chunk.data for chunk in chunks] == [
        b'"text"',
        b"null",
        b"[1.5,2.5]",
        b"0.5",
        b'{"data":1,"is_final":true,"metadata":{}}',
        b'{"a":1}',
        b'{"$bytes":"AA=="}',
        b"",
    ]
    assert [dict(chunk.metadata) for chunk in chunks if chunk.metadata] == [{"k": "1", "2": "True"}]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([False, True], [(b"0", False), (b"1", True)]),
        ([True], [(b"0", True)]),
        ([True, False, False], [(b"0", False), (b"1", False), (b"2", True)]),
        ([True, True], [(b"0", False), (b"1", True)]),
        ([False], [(b"0", False), (b"", True)]),
        ([], [(b"", True)]),
    ],
)
@pytest.mark.parametrize("name", ["finals", "finals_async"])
async def test_exactly_one_final_chunk_and_it_is_the_last(serve: Serve, name: str, marks: list[bool], expected: list[Any]) -> None:
    client = await serve(Tools)
    assert [(chunk.data, chunk.is_final) for chunk in await client.chunks(name, marks=marks)] == expected


async def test_final_chunk_of_the_tool_keeps_its_metadata(serve: Serve) -> None:
    client = await serve(Tools)
    assert [dict(chunk.metadata) for chunk in await client.chunks("finals", marks=[False, True])] == [{"n": "0"}, {"n": "1"}]


async def test_chunk_class_of_snakepit_without_metadata_is_unwrapped(serve: Serve) -> None:
    client = await serve(Tools)
    chunks = await client.chunks("finals", marks=[False, True], duck=True)
    assert [(chunk.data, chunk.is_final) for chunk in chunks] == [(b"0", False), (b"1", True)]


async def test_error_after_a_marked_final_delivers_it_unmarked(serve: Serve) -> None:
    client = await serve(Tools)
    call = client.stream("finals", marks=[False, True], fail=True)
    chunks = await until_end(call)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [(chunk.data, chunk.is_final) for chunk in chunks] == [(b"0", False), (b"1", False)]


@pytest.mark.parametrize("name", ["count", "count_async"])
async def test_half_a_million_chunks_in_batches_arrive_whole_and_in_order(serve: Serve, name: str) -> None:
    client = await serve(Tools)
    expected = 0
    async for message in client.worker.StreamTool(request(name, n=500_000)):
        assert 0 < len(message.payloads) + len(message.chunks) <= 1024
        for payload in message.payloads:
            assert payload == b'{"i":%d}' % expected
            expected += 1
        for chunk in message.chunks:
            expected += 1
            assert (chunk.chunk_id, chunk.data, chunk.is_final) == (f"{name}-500001", b"", True)
    assert expected == 500_001


async def test_fifty_streams_at_once_lose_and_mix_nothing(serve: Serve) -> None:
    client = await serve(Tools, concurrency=50)
    streams = await asyncio.gather(*(client.batches("count" if i % 2 else "count_async", n=2000) for i in range(50)))
    for batches in streams:
        values = [data for batch in batches for data in batch]
        assert values == [b'{"i":%d}' % i for i in range(2000)] + [b""]


async def test_batch_carries_256_kib_beyond_its_first_chunk(serve: Serve) -> None:
    client = await serve(Tools)
    batches = await client.batches("big", n=200, size=20_000)
    assert sum(map(len, batches)) == 201
    assert all(sum(map(len, batch[1:])) <= 256 << 10 for batch in batches)


async def test_chunk_larger_than_the_buffer_passes(serve: Serve) -> None:
    client = await serve(Tools)
    assert [len(value) for value in await client.values("big", n=2, size=5 << 20)] == [5 << 20] * 2


async def test_chunk_leaves_when_it_is_yielded(serve: Serve) -> None:
    client = await serve(Tools)
    delays = [time.monotonic() - float(chunk.data or "inf") async for chunk in client.stream("paced", n=10)]
    assert sorted(delays)[5] < 0.015


async def test_async_generator_that_never_waits_still_sends_as_it_goes(serve: Serve) -> None:
    client = await serve(Tools)
    # The client shares this tool's event loop, so its own clock tells nothing: the chunks' batches do.
    batches = await client.batches("busy")
    assert len(batches) >= 3


@pytest.mark.parametrize("name", ["fails", "fails_async"])
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    ("kind", "code", "error_type"),
    [
        ("value", grpc.StatusCode.INVALID_ARGUMENT, "ValueError"),
        ("exit", grpc.StatusCode.INTERNAL, "SystemExit"),
        ("interrupt", grpc.StatusCode.INTERNAL, "KeyboardInterrupt"),
        ("generator_exit", grpc.StatusCode.INTERNAL, "GeneratorExit"),
        ("base", grpc.StatusCode.INTERNAL, "BaseException"),
        ("stop", grpc.StatusCode.INTERNAL, "RuntimeError"),
        ("own", grpc.StatusCode.FAILED_PRECONDITION, "ToolError"),
        ("cancelled", grpc.StatusCode.INTERNAL, "CancelledError"),
        ("long", grpc.StatusCode.INTERNAL, "RuntimeError"),
    ],
)
async def test_error_arrives_after_the_chunks_before_it(
    serve: Serve, name: str, after: int, kind: str, code: grpc.StatusCode, error_type: str
) -> None:
    client = await serve(Tools)
    values, status, detail = await client.failure(name, after=after, kind=kind)
    assert values == list(range(after))
    assert status is code
    assert detail["type"] == error_type
    assert detail["context"] == {"tool_name": name, "session_id": ""}
    # and the worker lives on
    assert await client.result("add", a=1, b=2) == 3


async def test_traceback_shows_the_tools_own_frames_only(serve: Serve) -> None:
    client = await serve(Tools)
    _, _, detail = await client.failure("fails", after=0, kind="value")
    assert "test_streaming.py" in detail["traceback"]
    assert "gateway/runtime" not in detail["traceback"]


@pytest.mark.parametrize("after", [0, 2])
async def test_unserialisable_chunk_ends_the_stream_at_once(serve: Serve, after: int) -> None:
    client = await serve(Tools)
    values, status, detail = await client.failure("unserialisable", after=after, timeout=5)
    assert values == list(range(after))
    assert status is grpc.StatusCode.INTERNAL
    assert detail["message"] == "can't serialise thread.lock at $.model.layers[1]"


async def test_streaming_tool_that_returns_a_list_is_told_what_to_do(serve: Serve) -> None:
    client = await serve(Tools)
    _, status, detail = await client.failure("returns_list")
    assert status is grpc.StatusCode.INTERNAL
    assert detail["message"] == (
        "Tool returns_list is marked supports_streaming=True but returned list, not a generator: use yield, or leave supports_streaming out"
    )


@pytest.mark.parametrize("name", ["returns_generator", "awaits_generator"])
async def test_streaming_tool_may_return_a_generator(serve: Serve, name: str) -> None:
    client = await serve(Tools)
    assert len(await client.values(name)) == 3


async def test_generator_without_the_mark_is_told_what_to_do(serve: Serve) -> None:
    client = await serve(Tools)
    response = await client.call("yields_unmarked")
    assert not response.success
    assert "supports_streaming=True" in response.error_message
    assert response.metadata["error_code"] == "INTERNAL"
    _, status, detail = await client.failure("yields_unmarked")
    assert status is grpc.StatusCode.UNIMPLEMENTED
    assert "supports_streaming=True" in detail["message"]


async def test_unary_tool_called_as_stream_is_refused_with_snakepits_sentence(serve: Serve) -> None:
    client = await serve(Tools)
    _, status, detail = await client.failure("add", a=1, b=2)
    assert status is grpc.StatusCode.UNIMPLEMENTED
    assert detail["message"] == (
        "Streaming execution is not enabled for tool add. Enable streaming support on the adapter "
        "(supports_streaming: true) or use ExecuteTool instead."
    )


async def test_streaming_tool_called_as_unary_is_refused(serve: Serve) -> None:
    client = await serve(Tools)
    response = await client.call("count", n=1)
    assert response.metadata["error_code"] == "UNIMPLEMENTED"
    assert "Use ExecuteStreamingTool instead" in response.error_message


async def test_unknown_tool_is_not_found(serve: Serve) -> None:
    client = await serve(Tools)
    _, status, detail = await client.failure("nope")
    assert status is grpc.StatusCode.NOT_FOUND
    assert detail["type"] == "ToolNotFound"
    assert (await client.call("set_session_context")).metadata["error_code"] == "NOT_FOUND"


async def test_wrong_missing_and_surplus_arguments_are_listed(serve: Serve) -> None:
    client = await serve(Tools)
    _, status, detail = await client.failure("fails", after="many", surplus=1)
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert {error["field"] for error in detail["errors"]} == {"/after", "/kind", "/surplus"}
    assert all(error["detail"] for error in detail["errors"])


@pytest.mark.parametrize("name", ["big", "big_async"])
async def test_tool_waits_for_a_reader_that_stopped(serve: Serve, name: str) -> None:
    client = await serve(Tools)
    Tools.produced = 0
    call = client.stream(name, n=20_000, size=10_000)
    await call.read()
    settled = 0

    def stands_still() -> bool:
        nonlocal settled
        before, settled = settled, Tools.produced
        return before == settled

    await eventually(stands_still)
    # gRPC's own windows and buffers take some MB; 200 MB were asked for.
    assert Tools.produced < 4_000
    call.cancel()
    await eventually(lambda: len(client.executor) == 0)


def test_batch_holds_payloads_then_chunks_and_numbers_go_on() -> None:
    numbering = Numbering("t")
    first = numbering.batch([b"1", b"2"])
    assert (list(first.payloads), list(first.chunks)) == ([b"1", b"2"], [])
    second = numbering.batch([b"3", Marked(b"4", {"k": "v"}), b"5", Marked(b"", None, True)])
    assert list(second.payloads) == [b"3"]
    assert [(chunk.chunk_id, chunk.data, chunk.is_final, dict(chunk.metadata)) for chunk in second.chunks] == [
        ("t-4", b"4", False, {"k": "v"}),
        ("t-5", b"5", False, {}),
        ("t-6", b"", True, {}),
    ]
