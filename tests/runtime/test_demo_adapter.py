"""examples/ml_streaming.py: every tool of the demo adapter, in one worker process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from gateway.rpc import worker_pb2 as worker

from .conftest import Client, until_end

DEMO = str(Path(__file__).parents[2] / "examples" / "ml_streaming.py")


async def first(client: Client, tool: str, count: int, **arguments: Any) -> list[bytes]:
    call = client.stream(tool, **arguments)
    chunks = [(await call.read()).data for _ in range(count)]
    call.cancel()
    await until_end(call)
    return chunks


async def test_every_demo_tool_does_what_it_says(spawn: Callable[..., Any]) -> None:
    client = (await spawn("--adapter", DEMO)).client
    described = (await client.worker.Describe(worker.DescribeRequest())).tools
    assert all(tool.description and "description" in tool.parameters_schema for tool in described)

    assert [chunk["progress"] for chunk in await client.values("stream_progress", steps=2)] == [50.0, 100.0]
    assert [chunk["number"] for chunk in await client.values("stream_numbers", count=2)] == [0, 1]
    assert [chunk["value"] for chunk in await client.values("stream_items", count=2)] == ["Item 1", "Item 2"]
    assert [chunk["item"] for chunk in await client.values("process_items", items=["a", {"b": 1}])] == ["a", {"b": 1}]
    assert (await client.values("train_model", epochs=2))[-1]["type"] == "complete"
    assert (await client.values("train_with_progress", epochs=1))[-1]["status"] == "complete"
    assert [chunk["rows"] for chunk in await client.values("generate_dataset", rows=15, chunk_size=10)] == [10, 5]
    assert await client.values("may_fail", fail=False, after=1) == [{"step": 1}]
    assert (await client.failure("may_fail", after=0, error="missing"))[:2] == ([], grpc.StatusCode.NOT_FOUND)
    assert await first(client, "infinite_stream", 2, interval_ms=1) == [b'{"number":0}', b'{"number":1}']
    assert await first(client, "infinite_tokens", 2, interval_ms=1) == [b'{"token":"token-0"}', b'{"token":"token-1"}']
    assert "".join(await client.values("stream_tokens", text="one two three", delay_ms=1)) == "one two three"
    assert await client.result("add", a=1, b=2.5) == 3.5
    assert await client.result("describe_text", text="a b\nc") == {"characters": 5, "words": 3, "lines": 2}
    assert described[-1].name == "describe_text"
