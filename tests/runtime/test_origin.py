"""What a tool and its log lines know of the run, the request and the trace that they belong to."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace

from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.origin import Origin, RunNamed, read_origin
from gateway.runtime.tool import tool
from tests.runtime.conftest import Client, request

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
HEADERS = (
    ("x-gateway-run-id", "r_1"),
    ("x-snakepit-correlation-id", "req-1"),
    ("traceparent", PARENT),
    ("tracestate", "a=b"),
)


def known(adapter: BaseAdapter) -> dict[str, Any]:
    context = trace.get_current_span().get_span_context()
    assert adapter.session_context is not None
    record = logging.LogRecord("n", 20, "p", 1, "m", (), None)
    RunNamed().filter(record)
    return {
        "trace_context": adapter.trace_context,
        "current": f"{context.trace_id:032x}-{context.span_id:016x}",
        "request": adapter.session_context.origin.request_id,
        "log": record.run,  # type: ignore[attr-defined]
    }


class Knows(BaseAdapter):
    __thread_safe__ = True

    @tool(supports_streaming=True)
    def sync(self) -> Iterator[Any]:
        yield known(self)

    @tool(supports_streaming=True)
    async def later(self) -> Any:
        await asyncio.sleep(0)
        yield known(self)


async def ask(client: Client, name: str, metadata: Any) -> dict[str, Any]:
    call = client.bridge.ExecuteStreamingTool(request(name), timeout=20, metadata=metadata)
    (found,) = [json.loads(chunk.data) async for chunk in call if chunk.data]
    return dict(found)


@pytest.mark.parametrize("name", ["sync", "later"])
async def test_a_tool_knows_its_run_and_its_spans_are_the_runs_children(serve: Callable[..., Any], name: str) -> None:
    client = await serve(Knows)
    assert await ask(client, name, HEADERS) == {
        "trace_context": {"traceparent": PARENT, "tracestate": "a=b"},
        "current": f"{TRACE_ID}-00f067aa0ba902b7",
        "request": "req-1",
        "log": " [r_1]",
    }
    # The next execution, perhaps on the same thread, is not the first one's.
    assert await ask(client, name, ()) == {"trace_context": {}, "current": f"{'0' * 32}-{'0' * 16}", "request": "", "log": ""}


def test_an_adapter_without_a_context_has_no_trace() -> None:
    assert Knows().trace_context == {}


def test_without_opentelemetry_a_trace_is_only_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.runtime.origin._opentelemetry", lambda: None)
    origin = read_origin(HEADERS)
    origin.enter()
    assert origin == Origin("r_1", "req-1", {"traceparent": PARENT, "tracestate": "a=b"})
